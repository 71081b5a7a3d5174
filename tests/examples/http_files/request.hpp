#pragma once

#include <weft/streams/byte_stream.hpp>

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>

/// HTTP/1.1 requests without bodies, one after another on a connection.
namespace http_files {

struct request {
    std::string method;
    std::string target;
    bool keep_alive = false;
};

/// What cannot be answered but by an error; then the connection ends, for nobody knows where the next
/// request begins.
class bad_request : public std::runtime_error {
public:
    bad_request(int status, std::string const& why) : std::runtime_error(why), status_(status) {}
    int status() const { return status_; }

private:
    int status_;
};

/// Suspends where the connection does, with its errors.
class request_reader {
public:
    static constexpr std::size_t longest_head = 8192;

    explicit request_reader(weft::byte_receive_stream& from) : from_(&from) {}

    /// Until there is something of the next request. False: the client ended.
    bool wait_for_one();
    /// Errors: bad_request; incomplete_read (the client ended in the middle)
    request read();

private:
    bool receive_more();

    weft::byte_receive_stream* from_;
    std::string received_; // and not parsed yet
};

} // namespace http_files
