#include <weft/streams/tls_listener.hpp>

#include "tls_connection.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/streams/socket.hpp>

#include <iostream>
#include <optional>
#include <string>

namespace weft {

namespace {

std::string peer_of(any_byte_stream const& stream) {
    try {
        return " with " + stream.extra(socket_attribute::remote_address).to_string();
    } catch (std::exception const&) { // not a socket, or gone: there is nothing to say
        return {};
    }
}

void report(std::exception_ptr const& failure, any_byte_stream& stream) {
    std::string const peer = peer_of(stream);
    detail::drop(stream);
    try {
        std::rethrow_exception(failure);
    } catch (std::exception const& known) {
        std::cerr << "weft: the TLS handshake" + peer + " failed: " + known.what() + "\n"
                  << std::flush;
    }
}

} // namespace

tls_listener::tls_listener(std::unique_ptr<detail::byte_listener> from, tls_context context,
                           bool standard_compatible, duration handshake_timeout, std::nullptr_t)
    : listener_(std::move(from)),
      settings_{std::move(context), standard_compatible, handshake_timeout, report} {}

void tls_listener::handle_handshake_error(handshake_error_handler handler) {
    settings_.on_error = handler ? std::move(handler) : report;
}

attribute_map tls_listener::extra_attributes() const {
    return {{tls_attribute::standard_compatible, [this] { return settings_.standard_compatible; }}};
}

void tls_listener::serve_connections(connection_handler<tls_stream> const& handler,
                                     task_group& group) {
    if (!listener_) throw closed_resource_error(); // moved from
    listener_->serve(
        handler,
        [how = std::make_shared<settings const>(settings_)](any_byte_stream stream,
                                                            connection_handler<tls_stream> const& next) {
            how->secure(std::move(stream), next);
        },
        group);
}

// In the connection's task.
void tls_listener::settings::secure(any_byte_stream stream,
                                    connection_handler<tls_stream> const& handler) const {
    std::shared_ptr<detail::tls_connection> connection;
    std::exception_ptr failure;
    bool is_wanted = true;
    try {
        connection = std::make_shared<detail::tls_connection>(std::move(stream), context, true, "",
                                                              standard_compatible);
        is_wanted = handler.until_drained([&] {
            fail_after(handshake_timeout, [&connection] { connection->handshake(); });
        });
    } catch (cancelled const&) {
        any_byte_stream transport = connection->take_transport();
        detail::drop(transport);
        throw;
    } catch (...) { // given to the handler of such errors
        failure = std::current_exception();
    }
    if (!failure && is_wanted) return handler(tls_stream(std::move(connection)));
    any_byte_stream transport = connection ? connection->take_transport() : std::move(stream);
    connection.reset();
    if (!is_wanted) return detail::drop(transport);
    on_error(failure, transport);
}

} // namespace weft
