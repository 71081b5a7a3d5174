#pragma once

#ifdef WEFT_WITHOUT_TLS
#error "this weft was built without TLS (-Dtls=disabled, or no OpenSSL)"
#endif

#include <weft/runtime/time.hpp>
#include <weft/streams/listener.hpp>
#include <weft/streams/tls_stream.hpp>

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {

/// A listener whose connections are byte streams, whatever their type.
class byte_listener {
public:
    using secure = std::function<void(any_byte_stream, connection_handler<tls_stream> const&)>;

    virtual ~byte_listener() = default;
    virtual void serve(connection_handler<tls_stream> const&, secure const&, task_group&) = 0;
    virtual void close() = 0;
};

template <class Stream> class byte_listener_of final : public byte_listener {
public:
    explicit byte_listener_of(listener<Stream>& borrowed) : listener_(&borrowed) {}
    explicit byte_listener_of(std::unique_ptr<listener<Stream>> owned)
        : listener_(owned.get()), owned_(std::move(owned)) {}

    void serve(connection_handler<tls_stream> const& handler, secure const& before,
               task_group& group) override {
        auto const accepted = handler.after<Stream>(
            [before](Stream stream, connection_handler<tls_stream> const& next) {
                before(any_byte_stream(std::move(stream)), next);
            });
        listener_->serve_with(accepted, &group);
    }
    void close() override { listener_->close(); }

private:
    listener<Stream>* listener_;
    std::unique_ptr<listener<Stream>> owned_;
};

template <class Stream> std::type_identity<Stream> connection_of(listener<Stream> const&);

} // namespace detail

/// Shakes hands with whoever connects to a listener, each in a task of its own, and then serves it.
///
/// A client that fails, or is not done in time, does not reach the handler and does no harm: the
/// error goes to handle_handshake_error(), which by default closes the connection and writes a line
/// to standard error. An lvalue is borrowed; an rvalue or a unique_ptr is owned. Where a server
/// drains, those who have not shaken hands yet are let go at once: the time is for handlers.
///
/// Threads       as the listener
/// Cancellation  as the listener; what shakes hands is closed
/// Errors        as the listener. Attributes: only tls_attribute::standard_compatible
/// Source        AnyIO TLSListener
class tls_listener final : public listener<tls_stream> {
public:
    /// Gets the error and the connection, which is closed when it returns. What it throws ends the
    /// connection's task, and with it the server.
    using handshake_error_handler = std::function<void(std::exception_ptr, any_byte_stream&)>;

    template <class Listener>
    requires requires(Listener& given) { detail::connection_of(given); }
    explicit tls_listener(Listener&& from, tls_context context, bool standard_compatible = true,
                          duration handshake_timeout = std::chrono::seconds(30))
        : tls_listener(hold(std::forward<Listener>(from)), std::move(context), standard_compatible,
                       handshake_timeout, nullptr) {}
    template <class Listener>
    requires requires(Listener& given) { detail::connection_of(given); }
    explicit tls_listener(std::unique_ptr<Listener> from, tls_context context,
                          bool standard_compatible = true,
                          duration handshake_timeout = std::chrono::seconds(30))
        : tls_listener(own(std::move(from)), std::move(context), standard_compatible,
                       handshake_timeout, nullptr) {}

    /// Replaces what happens with errors, timeout_error among them. Before serve(). Not called for
    /// cancellation.
    void handle_handshake_error(handshake_error_handler handler);

    void close() override {
        if (listener_) listener_->close();
    }
    attribute_map extra_attributes() const override;

protected:
    void serve_connections(connection_handler<tls_stream> const&, task_group&) override;

private:
    tls_listener(std::unique_ptr<detail::byte_listener> from, tls_context context,
                 bool standard_compatible, duration handshake_timeout, std::nullptr_t);

    template <class Listener> static auto own(std::unique_ptr<Listener> from) {
        using stream = typename decltype(detail::connection_of(*from))::type;
        return std::unique_ptr<detail::byte_listener>(
            std::make_unique<detail::byte_listener_of<stream>>(
                std::unique_ptr<weft::listener<stream>>(std::move(from))));
    }
    template <class Listener> static auto hold(Listener&& from) {
        using stream = typename decltype(detail::connection_of(from))::type;
        if constexpr (std::is_lvalue_reference_v<Listener>)
            return std::unique_ptr<detail::byte_listener>(
                std::make_unique<detail::byte_listener_of<stream>>(from));
        else
            return own(std::make_unique<Listener>(std::move(from)));
    }

    struct settings { // connections have their own: they may outlive the listener
        tls_context context;
        bool standard_compatible;
        duration handshake_timeout;
        handshake_error_handler on_error;

        void secure(any_byte_stream, connection_handler<tls_stream> const&) const;
    };

    std::unique_ptr<detail::byte_listener> listener_;
    settings settings_;
};

} // namespace weft
