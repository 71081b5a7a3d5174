#include "connections.hpp"

#include <weft/streams/error.hpp>

#include <array>
#include <span>
#include <vector>

namespace echo {

namespace {

void send_back(weft::socket_stream& connection) {
    std::array<std::byte, 4096> chunk;
    while (std::size_t const size = connection.receive_some(chunk))
        connection.send(std::span(chunk).first(size));
}

void drop(weft::socket_stream& connection) {
    std::vector<std::byte> chunk(weft::byte_stream::default_chunk);
    while (connection.receive_some(chunk) != 0)
        continue;
}

void give(weft::socket_stream& connection) {
    constexpr std::size_t total = std::size_t(1) << 30;
    std::vector<std::byte> const chunk(weft::byte_stream::default_chunk);
    std::array<std::byte, 1> request;
    if (connection.receive_some(request) == 0) return;
    for (std::size_t sent = 0; sent < total; sent += chunk.size())
        connection.send(chunk);
}

} // namespace

void handle(mode how, weft::socket_stream connection) {
    try {
        switch (how) {
        case mode::echo: return send_back(connection);
        case mode::sink: return drop(connection);
        case mode::source: return give(connection);
        }
    } catch (weft::broken_resource_error const&) { // the client is gone: no concern of the others
    }
}

} // namespace echo
