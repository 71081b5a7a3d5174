#pragma once

#ifdef WEFT_WITHOUT_TLS
#error "this weft was built without TLS (-Dtls=disabled, or no OpenSSL)"
#endif

#include <weft/io/port_number.hpp>
#include <weft/streams/tcp.hpp>
#include <weft/streams/tls_attribute.hpp>
#include <weft/streams/tls_context.hpp>
#include <weft/streams/tls_listener.hpp>
#include <weft/streams/tls_stream.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace weft {

struct tls_connect_options {
    std::optional<tls_context> context{}; ///< not given: tls_context::client()
    std::string tls_hostname{};           ///< to verify; empty: the host
    bool standard_compatible = true;      ///< as in tls_options
    std::string local_host{};             ///< as in connect_options
    duration happy_eyeballs_delay = std::chrono::milliseconds(250);
};

/// connect_tcp(), then TLS. Cancellation: a cancellation point; cancelled or failed, nothing is
/// left open. Errors: those of connect_tcp() and of tls_stream::wrap(). Source: AnyIO
/// connect_tcp(tls=True)
tls_stream connect_tls(std::string host, port_number port, tls_connect_options options = {});

} // namespace weft
