#pragma once

#include <weft/sync/error.hpp>

#include <string>
#include <system_error>

namespace weft {

/// The resource was closed on this side: before the call, or by another task during it. It wins
/// over whatever else could be said about the resource. Source: AnyIO ClosedResourceError
class closed_resource_error : public error {
public:
    closed_resource_error() : error("the resource is closed") {}
    using error::error;
};

/// Every attempt to connect failed. code() is that of the first failure, and an exception_group of
/// all of them is nested. Source: AnyIO ConnectionFailed
class connection_failed : public std::system_error {
public:
    using std::system_error::system_error;
};

/// A worker process ended, or did not behave, while a call of to_process was under way; the text
/// says how. The next call gets another process. Source: AnyIO BrokenWorkerProcess
class broken_worker_process : public error {
public:
    using error::error;
};

} // namespace weft
