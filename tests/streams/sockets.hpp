#pragma once

#include "support/run_test.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/streams/tcp.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

#include <sys/socket.h>

/// What tests of sockets share. They talk to the kernel, so there is no "sim".
namespace weft::test {

inline void run_with_sockets(std::function<void()> const& body, unsigned times = 1) {
    run_test({.seeds = {}, .times = times}, body);
}

struct connection {
    socket_stream here;
    socket_stream there;
};

inline std::uint16_t port_of(typed_attribute_provider const& socket) {
    return socket.extra(socket_attribute::local_port);
}

inline void echo_over_tcp(socket_stream stream) {
    for (bytes const& chunk : stream)
        stream.send(chunk);
}

/// Serves 127.0.0.1 at some port.
inline auto listen() {
    return create_tcp_listener({.local_host = "127.0.0.1"});
}

inline socket_stream connect_to(typed_attribute_provider const& listener) {
    return connect_tcp("127.0.0.1", port_of(listener));
}

/// Two ends of one TCP connection over loopback.
inline connection connect_pair() {
    auto listener = listen();
    auto& accepting =
        dynamic_cast<socket_listener<socket_stream>&>(*listener.listeners().front());
    std::optional<socket_stream> accepted;
    std::optional<socket_stream> connected;
    with_task_group([&](task_group& group) {
        group.start_soon([&] { accepted.emplace(accepting.accept()); });
        connected.emplace(connect_to(listener));
    });
    return {*std::move(connected), *std::move(accepted)};
}

/// Closing sends a reset.
inline void close_with_reset(socket_stream& stream) {
    ::linger const at_once{1, 0};
    ::setsockopt(stream.extra(socket_attribute::raw_socket), SOL_SOCKET, SO_LINGER, &at_once,
                 sizeof at_once);
    stream.close();
}

} // namespace weft::test
