#pragma once

#include <weft/io/port_number.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/socket.hpp>
#include <weft/streams/stapled.hpp>

#include <chrono>
#include <cstdint>
#include <string>

namespace weft {

struct connect_options {
    std::string local_host{};         ///< the address or name to connect from
    port_number local_port = 0;       ///< needs local_host
    duration happy_eyeballs_delay = std::chrono::milliseconds(250); ///< before the next attempt
};

/// Connects to a host, given by name or address.
///
/// Of a name's addresses the first IPv6 one and the first IPv4 one are tried first. The next
/// attempt starts when the one before failed, or after a delay; the first that succeeds is taken,
/// and the others are closed.
///
/// Cancellation  a cancellation point; cancelled, nothing is left open
/// Errors        connection_failed (all attempts failed; an exception_group of all failures is
///               nested); std::system_error (the name cannot be resolved); std::invalid_argument
/// Source        AnyIO connect_tcp
socket_stream connect_tcp(std::string host, port_number port, connect_options options = {});

struct tcp_listener_options {
    std::string local_host{};     ///< empty: every interface
    port_number local_port = 0;   ///< 0: one that is free, the same for all addresses
    int family = 0;               ///< AF_INET, AF_INET6 or 0 for both
    int backlog = 65536;          ///< at most
    bool reuse_port = false;      ///< several listeners may share the port
};

/// Listens on every address of the local host: one socket for IPv4 and IPv6 where neither host nor
/// family is given, else one for each address.
///
/// Cancellation  a cancellation point; cancelled or failed, nothing is left open
/// Errors        std::system_error (an address cannot be had: EADDRINUSE and the like; with several
///               addresses and no port for all of them, an exception_group is nested)
/// Source        AnyIO create_tcp_listener
multi_listener<socket_stream> create_tcp_listener(tcp_listener_options options = {});

} // namespace weft
