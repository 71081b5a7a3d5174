#pragma once

#ifdef WEFT_WITHOUT_TLS
#error "this weft was built without TLS (-Dtls=disabled, or no OpenSSL)"
#endif

#include <weft/streams/byte_stream.hpp>
#include <weft/streams/tls_attribute.hpp>
#include <weft/streams/tls_context.hpp>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace weft {

namespace detail {
class tls_connection;
} // namespace detail

struct tls_options {
    std::optional<bool> server_side{};    ///< not given: whether no hostname is
    std::string hostname{};               ///< a client's: asked for, and verified; IDNA 2008
    std::optional<tls_context> context{}; ///< not given: tls_context::client()
    bool standard_compatible = true;      ///< an end without close_notify is an error, not the end
};

/// TLS over any byte stream.
///
/// One task receives and one sends at the same time; key updates and session tickets come and go
/// beneath. send() returns when all of it was given to the stream underneath. With
/// standard_compatible, close() says good-bye and waits for the peer's: with a peer that says
/// nothing, only cancellation ends that, and what the peer still sends makes it fail; whatever
/// happens, the stream underneath is closed then. A close() by another task meanwhile waits for the
/// first one; cancelled, as in close_forcefully(), or called by an OS thread, it closes the stream
/// underneath, and the first one returns. Where sending fails, what the peer had said before can still be received. Destroyed, or closed
/// outside of a run, it says no good-bye; whoever is inside hears that it is closed.
///
/// Threads       any task; close() wakes those that wait in another one
/// Cancellation  receive_some(): nothing was taken. send(): nothing, if it waited for its turn; what was
///               encrypted, but not begun to be sent, goes out with the next call; in the middle of a
///               record the stream is broken. unwrap(): in the middle of its good-bye the same; later
///               sending is over, and it can be called again. close(): it is closed
/// Errors        as byte_stream; tls_error (what OpenSSL says; then the stream is broken);
///               broken_resource_error (also: the peer ended without close_notify);
///               std::logic_error (send_eof(): TLS has no such thing)
/// Source        AnyIO TLSStream
class tls_stream final : public byte_stream {
public:
    /// Shakes hands. Where it fails the stream underneath is not closed, but an owned one is
    /// destroyed. Cancellation: broken. Errors: tls_error, with OpenSSL's reason;
    /// broken_resource_error (standard_compatible) or end_of_stream (the peer went away);
    /// std::invalid_argument (a server without context; a client that verifies, without hostname;
    /// no host name, or one that begins with a dot)
    static tls_stream wrap(any_byte_stream transport, tls_options options = {});

    explicit tls_stream(std::shared_ptr<detail::tls_connection>);
    tls_stream(tls_stream&&) noexcept;
    tls_stream& operator=(tls_stream&&) noexcept;
    ~tls_stream() override;

    std::size_t receive_some(buffer target) override;
    void send(bytes_view data) override;
    void send(std::span<bytes_view const> parts) override;
    [[noreturn]] void send_eof() override;

    /// Says good-bye, waits for the peer's, and gives back the stream underneath and what came on
    /// it afterwards. This stream is closed then. Errors: busy_resource_error (somebody receives or
    /// sends); closed_resource_error (also: close() came first, the stream underneath stays);
    /// tls_error (the peer went on sending)
    std::pair<any_byte_stream, bytes> unwrap();

    /// Changes the key for sending, and asks the peer to do the same, with one of the next send()s.
    /// Never waits. Errors: closed_resource_error; std::logic_error (before TLS 1.3). Source: OpenSSL
    /// SSL_key_update
    void update_keys();

    void close() override;
    attribute_map extra_attributes() const override;

private:
    std::shared_ptr<detail::tls_connection> connection_; // a call keeps it until it has left
};

} // namespace weft
