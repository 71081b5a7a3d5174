#include "server.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/listener.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <optional>
#include <string>

#include <unistd.h>

namespace http_files {

namespace {

constexpr std::uint64_t small_file = 16384; // goes out with its head, in one segment train
constexpr std::uint64_t piece = 1 << 20;
constexpr std::chrono::milliseconds longest_farewell{500}; // for the client to end, too

char const* reason(int status) {
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 431: return "Request Header Fields Too Large";
    case 503: return "Service Unavailable";
    default: return "Not Found";
    }
}

std::string http_date() {
    std::time_t const now = std::time(nullptr);
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[64];
    std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    return text;
}

std::string head_of(int status, std::string const& type, std::uint64_t length, bool keep_alive) {
    return "HTTP/1.1 " + std::to_string(status) + " " + reason(status) + "\r\nDate: " +
           http_date() + "\r\nContent-Type: " + type +
           "\r\nContent-Length: " + std::to_string(length) +
           (status == 405 ? "\r\nAllow: GET, HEAD" : "") +
           (keep_alive ? "\r\nConnection: keep-alive\r\n\r\n" : "\r\nConnection: close\r\n\r\n");
}

std::string read_small(found_file const& file) {
    std::string content(file.size, '\0');
    std::size_t done = 0;
    while (done < content.size()) {
        ssize_t const count = ::pread(file.fd.get(), content.data() + done, content.size() - done,
                                      ::off_t(done));
        if (count <= 0) break;
        done += std::size_t(count);
    }
    content.resize(done);
    return content;
}

// What is unread at the end would reset the connection, and the last answer might be lost with it.
void drop_rest(weft::socket_stream& client) {
    std::array<std::byte, 4096> rest;
    for (std::size_t dropped = 0; dropped < piece;) {
        std::size_t const count = client.receive_some(rest);
        if (count == 0) break;
        dropped += count;
    }
}

} // namespace

// A connection that waits for a request, or for the rest of one: the end of the server ends it at once.
class server::idle_scope {
public:
    explicit idle_scope(server& of) : server_(of) {
        std::lock_guard const guard(server_.mutex_);
        server_.idle_.insert(&scope);
        if (server_.ending_) scope.cancel("the server ends");
    }
    ~idle_scope() {
        std::lock_guard const guard(server_.mutex_);
        server_.idle_.erase(&scope);
    }

    weft::cancel_scope scope;

private:
    server& server_;
};

void server::serve(weft::multi_listener<weft::socket_stream>& listener) {
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            try {
                weft::sleep_forever();
            } catch (weft::cancelled const&) {
                end_idle_connections();
                throw;
            }
        });
        weft::serve(
            listener, [this](weft::socket_stream client) { attend(std::move(client)); },
            {.drain = limits_.drain, .max_connections = limits_.connections});
    });
}

void server::end_idle_connections() {
    std::lock_guard const guard(mutex_);
    ending_ = true;
    for (weft::cancel_scope* const each : idle_)
        each->cancel("the server ends");
}

void server::attend(weft::socket_stream client) {
    try {
        try {
            request_reader reader(client);
            bool goes_on = true;
            while (goes_on) {
                std::optional<request> const asked = next_request(reader);
                goes_on = asked && answer(client, *asked);
            }
        } catch (bad_request const& failure) {
            refuse(client, failure);
        }
        client.send_eof();
        weft::move_on_after(longest_farewell, [&] { drop_rest(client); });
    } catch (weft::incomplete_read const&) { // the client ended in the middle of a request
    } catch (weft::broken_resource_error const&) { // or is gone
    } catch (weft::timeout_error const&) { // or takes nothing of its answer
    }
}

// Nothing: the client has ended, was silent for too long, or the server ends, which waits for no request.
std::optional<request> server::next_request(request_reader& reader) {
    idle_scope idle(*this);
    std::optional<request> asked;
    idle.scope.run([&] {
        bool there = false;
        weft::move_on_after(limits_.idle, [&] { there = reader.wait_for_one(); });
        if (!there) return;
        try {
            weft::fail_after(limits_.head, [&] { asked = reader.read(); });
        } catch (weft::timeout_error const&) {
            throw bad_request(408, "the request took too long");
        }
    });
    return asked;
}

// Whether the connection goes on.
bool server::answer(weft::socket_stream& client, request const& asked) {
    bool const with_body = asked.method == "GET";
    if (!with_body && asked.method != "HEAD") throw bad_request(405, "only GET and HEAD");
    found_file const found = files_.open(asked.target);
    std::string const sorry = std::string(reason(found.status)) + "\n";
    std::uint64_t const length = found.fd ? found.size : sorry.size();
    std::string const head = head_of(found.status, found.fd ? found.type : "text/plain", length,
                                     asked.keep_alive);
    bool const at_once = !found.fd || !with_body || found.size <= small_file;
    std::string const body = !with_body ? "" : !found.fd ? sorry : at_once ? read_small(found) : "";
    std::array<weft::bytes_view, 2> const parts{head, body};
    weft::fail_after(limits_.piece, [&] { client.send(parts); });
    if (!at_once) send_body(client, found);
    bool const complete = !with_body || !at_once || body.size() == length;
    return asked.keep_alive && complete;
}

void server::refuse(weft::socket_stream& client, bad_request const& failure) {
    std::string const text = std::string(failure.what()) + "\n";
    weft::fail_after(limits_.piece, [&] {
        client.send(head_of(failure.status(), "text/plain", text.size(), false) + text);
    });
}

void server::send_body(weft::socket_stream& client, found_file const& file) {
    for (std::uint64_t sent = 0; sent < file.size;) {
        std::uint64_t count = 0;
        weft::fail_after(limits_.piece, [&] {
            count = client.send_file(file.fd.get(), sent, std::min(piece, file.size - sent));
        });
        if (count == 0) throw weft::broken_resource_error("the file became shorter");
        sent += count;
    }
}

} // namespace http_files
