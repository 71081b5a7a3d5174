#pragma once

#include "request.hpp"
#include "site.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/tcp.hpp>

#include <chrono>
#include <cstddef>
#include <mutex>
#include <optional>
#include <unordered_set>

/// A server of files over HTTP/1.1.
namespace http_files {

struct limits {
    std::size_t connections = 10'000;
    weft::duration idle = std::chrono::seconds(15);  ///< between two requests
    weft::duration head = std::chrono::seconds(10);  ///< from the first octet of one to its end
    weft::duration piece = std::chrono::seconds(30); ///< for each piece of an answer
    weft::duration drain = std::chrono::seconds(10); ///< at the end, for what has been begun
};

class server {
public:
    server(site files, limits allowed) : files_(std::move(files)), limits_(allowed) {}

    /// Until it is cancelled: then it accepts no more, ends the connections that are idle or in
    /// the middle of a request, and lets answers that have begun come to their end.
    void serve(weft::multi_listener<weft::socket_stream>&);

private:
    class idle_scope;

    void attend(weft::socket_stream);
    std::optional<request> next_request(request_reader&);
    bool answer(weft::socket_stream&, request const&);
    void refuse(weft::socket_stream&, bad_request const&);
    void send_body(weft::socket_stream&, found_file const&);
    void end_idle_connections();

    site files_;
    limits limits_;
    std::mutex mutex_; // of what is below; nothing waits while it is held
    bool ending_ = false;
    std::unordered_set<weft::cancel_scope*> idle_;
};

} // namespace http_files
