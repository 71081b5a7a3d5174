#pragma once

#include <weft/runtime/error.hpp>

#include <string>

namespace weft {

/// What was asked for is not there now, and the call does not wait. Source: AnyIO WouldBlock
class would_block : public error {
public:
    would_block() : error("the call would have to wait") {}
    using error::error;
};

/// A resource that is of no use any more, for reasons outside of it. Source: AnyIO BrokenResourceError
class broken_resource_error : public error {
public:
    broken_resource_error() : error("the resource is broken") {}
    using error::error;
};

/// Two tasks want to do at once what only one may do. Source: AnyIO BusyResourceError
class busy_resource_error : public error {
public:
    explicit busy_resource_error(std::string const& action)
        : error("another task is already " + action + " this resource") {}
};

/// There will be no value: the future was cancelled, or its promise is gone. Source: AnyIO
/// FutureCancelled
class future_cancelled : public error {
public:
    future_cancelled() : error("the future was cancelled") {}
    using error::error;
};

} // namespace weft
