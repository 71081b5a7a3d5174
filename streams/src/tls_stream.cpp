#include <weft/streams/tls_stream.hpp>

#include "tls_connection.hpp"

#include <weft/streams/tls.hpp>

#include <stdexcept>
#include <utility>

namespace weft {

namespace {

// A reference of the call's own: whom close() wakes may find the stream destroyed.
std::shared_ptr<detail::tls_connection>
open(std::shared_ptr<detail::tls_connection> const& connection) {
    if (!connection) throw closed_resource_error(); // moved from
    return connection;
}

} // namespace

tls_stream tls_stream::wrap(any_byte_stream transport, tls_options options) {
    bool const server_side = options.server_side.value_or(options.hostname.empty());
    if (server_side && !options.context)
        throw std::invalid_argument("a TLS server needs a context with its certificate");
    if (!options.context) options.context = tls_context::client();
    auto connection = std::make_shared<detail::tls_connection>(
        std::move(transport), *std::move(options.context), server_side, options.hostname,
        options.standard_compatible);
    connection->handshake();
    return tls_stream(std::move(connection));
}

tls_stream::tls_stream(std::shared_ptr<detail::tls_connection> connection)
    : connection_(std::move(connection)) {}
tls_stream::tls_stream(tls_stream&&) noexcept = default;
tls_stream& tls_stream::operator=(tls_stream&& other) noexcept {
    if (this == &other) return *this;
    tls_stream const before(std::exchange(connection_, std::move(other.connection_)));
    return *this;
}
tls_stream::~tls_stream() {
    if (connection_.use_count() > 1) connection_->abandon(); // who is inside would keep it open
}

std::size_t tls_stream::receive_some(buffer target) {
    return open(connection_)->receive_some(target);
}
void tls_stream::send(bytes_view data) { open(connection_)->send(data); }
void tls_stream::send(std::span<bytes_view const> parts) { open(connection_)->send(parts); }
void tls_stream::send_eof() {
    throw std::logic_error(open(connection_)->is_tls_1_3()
                               ? "send_eof() has not been implemented for TLS streams"
                               : "before TLS 1.3 a stream cannot end in one direction only");
}
std::pair<any_byte_stream, bytes> tls_stream::unwrap() { return open(connection_)->unwrap(); }
void tls_stream::update_keys() { open(connection_)->update_keys(); }
void tls_stream::close() {
    auto const alive = connection_;
    if (alive) alive->close();
}
attribute_map tls_stream::extra_attributes() const {
    auto const alive = connection_;
    return alive ? alive->attributes() : attribute_map();
}

tls_stream connect_tls(std::string host, port_number port, tls_connect_options options) {
    if (!host.empty()) detail::require_fiber("connect_tls"); // else it is connect_tcp()'s to refuse
    std::string const name = options.tls_hostname.empty() ? host : options.tls_hostname;
    socket_stream connected = connect_tcp(std::move(host), port,
                                          {.local_host = std::move(options.local_host),
                                           .happy_eyeballs_delay = options.happy_eyeballs_delay});
    return tls_stream::wrap(std::move(connected),
                            {.server_side = false,
                             .hostname = name,
                             .context = std::move(options.context),
                             .standard_compatible = options.standard_compatible});
}

} // namespace weft
