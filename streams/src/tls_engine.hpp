#pragma once

#include <weft/io/bytes.hpp>
#include <weft/streams/detail/octet_queue.hpp>
#include <weft/streams/tls_context.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <string>

#include <openssl/ssl.h>

namespace weft::detail {

struct free_ssl {
    void operator()(SSL* ssl) const { ::SSL_free(ssl); }
};

/// OpenSSL's half of a TLS stream: octets in, octets out, nothing waits.
///
/// What the peer sent is put into `incoming`, what it is to be sent lies in `outgoing`. Each call
/// does what it can with that. The one copy beyond those that OpenSSL makes itself is between these
/// queues and its records.
///
/// What is wrong behind good octets is the failure of the next call, whichever that is.
///
/// What the peer is to be sent is bounded: if it asks and asks, and does not receive the answers, the
/// calls fail when so much lies in `outgoing` as no peer means well to leave there.
///
/// Threads  one at a time; the caller locks
class tls_engine {
public:
    /// Errors: tls_error; std::invalid_argument (no host name)
    tls_engine(tls_context context, bool server_side, std::string const& hostname);
    tls_engine(tls_engine const&) = delete;
    tls_engine& operator=(tls_engine const&) = delete;

    enum class state : unsigned char { done, wants_input, ended, failed };
    struct outcome {
        state is = state::done;
        std::size_t count = 0;          // of octets that were read
        std::exception_ptr error{};     // failed
        bool is_unexpected_end = false; // that is why
        bool has_output = false;        // the call put something out
    };

    /// Of a server in TLS 1.3 the last octets, which are tickets, can wait.
    outcome handshake();
    /// Reads as many records as there are and fit. ended: the peer's close_notify has come.
    outcome read(buffer target);
    outcome write(bytes_view data);
    /// Puts out close_notify; done: the peer's has come, too.
    outcome shut_down();
    /// The last call: there are no close_notify, and the session may be resumed all the same.
    void leave_in_good_order();

    bool peer_has_shut_down() const;
    bool has_shut_down() const;
    SSL* native() const { return ssl_.get(); }
    bool server_side() const { return server_side_; }

    void put_out(bytes_view record); // by OpenSSL. Errors: std::bad_alloc

    octet_queue incoming;
    octet_queue outgoing;
    bool input_has_ended = false;
    bool wants_key_update = false; // from TLS 1.3 on, before the next write()

private:
    template <class Call> outcome attempt(Call call);
    void judge(int result, outcome& after);
    void verify_host(std::string const& hostname);
    bool has_failed_in_reading() const;

    tls_context context_; // whose data the callbacks use
    bool server_side_;
    bool had_shut_down_ = false; // before the call that is under way
    bool is_flooded_ = false;
    std::string session_name_;
    std::unique_ptr<SSL, free_ssl> ssl_;
    std::optional<outcome> postponed_; // what read() met behind good octets
};

} // namespace weft::detail
