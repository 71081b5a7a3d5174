#include "tls_engine.hpp"

#include "tls_context_data.hpp"
#include "tls_failure.hpp"

#include <weft/io/detail/host_name.hpp>
#include <weft/io/error.hpp>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

namespace weft::detail {

namespace {

// Four times what a writer leaves there for a moment; thousands of answers.
constexpr std::size_t most_outgoing = 262144;

// A BIO of our own instead of two memory BIOs: those move what is left to the front at each read,
// and their contents would have to be copied out once more.

tls_engine& engine_of(BIO* bio) { return *static_cast<tls_engine*>(::BIO_get_data(bio)); }

int bio_read(BIO* bio, char* target, std::size_t size, std::size_t* count) noexcept {
    tls_engine& engine = engine_of(bio);
    ::BIO_clear_retry_flags(bio);
    *count = engine.incoming.take(buffer(reinterpret_cast<std::byte*>(target), size));
    if (*count != 0) return 1;
    if (!engine.input_has_ended) BIO_set_retry_read(bio);
    return 0;
}

int bio_write(BIO* bio, char const* data, std::size_t size, std::size_t* count) noexcept {
    ::BIO_clear_retry_flags(bio);
    tls_engine& engine = engine_of(bio);
    *count = size;
    try {
        engine.put_out(bytes_view(reinterpret_cast<std::byte const*>(data), size));
    } catch (...) { // no memory; OpenSSL is C
        ERR_raise(ERR_LIB_BIO, ERR_R_MALLOC_FAILURE);
        return 0;
    }
    return 1;
}

long bio_control(BIO* bio, int command, long, void*) noexcept {
    switch (command) {
    case BIO_CTRL_EOF: return engine_of(bio).input_has_ended && engine_of(bio).incoming.empty();
    case BIO_CTRL_FLUSH: return 1;
    default: return 0; // also to the question for kTLS
    }
}

BIO_METHOD const* bio_method() {
    static BIO_METHOD const* const method = [] { // not freed: static destructors may call run()
        BIO_METHOD* const made =
            ::BIO_meth_new(::BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weft stream");
        ::BIO_meth_set_read_ex(made, bio_read);
        ::BIO_meth_set_write_ex(made, bio_write);
        ::BIO_meth_set_ctrl(made, bio_control);
        return made;
    }();
    return method;
}

// Without the root's dot and a zone: neither is in certificates. OpenSSL would take a name that
// begins with a dot for any name under it.
std::string as_in_certificates(std::string const& hostname) {
    std::string name = to_ascii_host(hostname);
    if (name.find('\0') != std::string::npos)
        throw std::invalid_argument("the host name contains a NUL");
    if (name.starts_with('.'))
        throw std::invalid_argument("the host name '" + hostname + "' begins with a dot");
    if (name.ends_with('.')) name.pop_back();
    if (name.find(':') != std::string::npos) name = name.substr(0, name.find('%'));
    return name;
}

bool is_ip_address(std::string const& name) {
    unsigned char octets[16];
    return ::inet_pton(AF_INET, name.c_str(), octets) == 1 ||
           ::inet_pton(AF_INET6, name.c_str(), octets) == 1;
}

bool is_about_the_end(int error, bool input_has_ended) {
    if (!input_has_ended) return false;
    unsigned long const code = ::ERR_peek_error();
    return error == SSL_ERROR_SYSCALL ||
           (ERR_GET_LIB(code) == ERR_LIB_SSL &&
            ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING);
}

} // namespace

tls_engine::tls_engine(tls_context context, bool server_side, std::string const& hostname)
    : context_(std::move(context)), server_side_(server_side) {
    clear_tls_errors();
    ssl_.reset(::SSL_new(context_.native()));
    BIO* const bio = ssl_ ? ::BIO_new(bio_method()) : nullptr;
    if (bio == nullptr) throw_tls_error("cannot make a stream");
    ::BIO_set_data(bio, this);
    ::BIO_set_init(bio, 1);
    ::SSL_set_bio(ssl_.get(), bio, bio);
    if (server_side_) {
        ::SSL_set_accept_state(ssl_.get());
        return;
    }
    ::SSL_set_connect_state(ssl_.get());
    verify_host(hostname);
}

void tls_engine::verify_host(std::string const& hostname) {
    SSL* const ssl = ssl_.get();
    bool const verifies = (::SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0;
    if (hostname.empty()) {
        if (verifies)
            throw std::invalid_argument("a client that verifies whom it talks to needs a hostname");
        return;
    }
    session_name_ = as_in_certificates(hostname);
    bool const is_address = is_ip_address(session_name_);
    if (!is_address && ::SSL_set_tlsext_host_name(ssl, session_name_.c_str()) != 1)
        throw_tls_error("'" + hostname + "' cannot be asked for");
    if (!verifies) return;
    ::SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    int const set =
        is_address ? ::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(ssl), session_name_.c_str())
                   : ::SSL_set1_host(ssl, session_name_.c_str());
    if (set != 1) throw_tls_error("'" + hostname + "' cannot be verified");
    tls_context_data* const data = tls_context_data::of(context_.native());
    if (data == nullptr) return;
    set_session_name(ssl, &session_name_);
    if (ssl_session const known = data->sessions.take(session_name_))
        ::SSL_set_session(ssl, known.get());
}

void tls_engine::put_out(bytes_view record) {
    // RFC 8446, 6.1: nothing follows a close_notify. OpenSSL still answers key updates, of a peer that
    // has perhaps gone.
    if (had_shut_down_) return;
    is_flooded_ |= outgoing.size() + record.size() > most_outgoing;
    if (!is_flooded_) outgoing.append(record);
}

template <class Call> tls_engine::outcome tls_engine::attempt(Call call) {
    clear_tls_errors();
    std::size_t const output = outgoing.size();
    had_shut_down_ = has_shut_down();
    int const result = call(ssl_.get());
    outcome after{.has_output = outgoing.size() != output};
    if (result <= 0) judge(result, after);
    if (is_flooded_) // something is missing: nothing more of it is of use
        after = {.is = state::failed,
                 .error = std::make_exception_ptr(broken_resource_error(
                     "the peer asks again and again, and does not receive the answers"))};
    clear_tls_errors(); // also what a success leaves: a ticket that could not be read, say
    return after;
}

void tls_engine::judge(int result, outcome& after) {
    int const error = ::SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_WANT_READ) {
        after.is = state::wants_input;
    } else if (error == SSL_ERROR_ZERO_RETURN) {
        after.is = state::ended;
    } else {
        after.is = state::failed;
        after.is_unexpected_end = is_about_the_end(error, input_has_ended);
        after.error = std::make_exception_ptr(take_tls_error(ssl_.get()));
    }
}

tls_engine::outcome tls_engine::handshake() {
    outcome after = attempt([](SSL* ssl) { return ::SSL_do_handshake(ssl); });
    if (after.is == state::done && server_side_ && ::SSL_version(ssl_.get()) >= TLS1_3_VERSION)
        after.has_output = false;
    return after;
}

tls_engine::outcome tls_engine::read(buffer target) {
    if (postponed_) return *std::exchange(postponed_, std::nullopt);
    std::size_t total = 0;
    bool has_output = false;
    while (total < target.size()) {
        std::size_t count = 0;
        outcome after = attempt([&](SSL* ssl) {
            return ::SSL_read_ex(ssl, target.data() + total, target.size() - total, &count);
        });
        total += count;
        has_output |= after.has_output;
        if (after.is != state::done) {
            if (total == 0) return after;
            if (after.is != state::wants_input) postponed_ = std::move(after);
            break;
        }
        if (incoming.empty() && ::SSL_has_pending(ssl_.get()) == 0) break;
    }
    return {.count = total, .has_output = has_output};
}

// What OpenSSL says afterwards would not be the reason.
bool tls_engine::has_failed_in_reading() const {
    return postponed_ && postponed_->is == state::failed;
}

tls_engine::outcome tls_engine::write(bytes_view data) {
    if (has_failed_in_reading()) return *std::exchange(postponed_, std::nullopt);
    // In the middle of a message of the peer's OpenSSL would refuse; then the write after this one.
    if (wants_key_update && ::SSL_in_init(ssl_.get()) == 0) {
        ::SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_REQUESTED);
        wants_key_update = false;
    }
    std::size_t written = 0; // all of it: the queue takes everything
    return attempt(
        [&](SSL* ssl) { return ::SSL_write_ex(ssl, data.data(), data.size(), &written); });
}

tls_engine::outcome tls_engine::shut_down() {
    if (has_failed_in_reading()) return *std::exchange(postponed_, std::nullopt);
    bool is_waiting = false;
    auto const shut_down = [&is_waiting](SSL* ssl) {
        int const result = ::SSL_shutdown(ssl);
        is_waiting = result == 0;
        return is_waiting ? 1 : result;
    };
    outcome after = attempt(shut_down);
    if (after.is == state::done && is_waiting) {
        after = attempt(shut_down); // ours is out; now for the peer's
        if (after.is == state::done && is_waiting) after.is = state::wants_input;
    }
    after.has_output = !outgoing.empty(); // OpenSSL says it once; a cancelled call may have left it
    return after;
}

// OpenSSL forgets the session of a stream that is freed without its close_notify.
void tls_engine::leave_in_good_order() {
    ::SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

bool tls_engine::has_shut_down() const {
    return (::SSL_get_shutdown(ssl_.get()) & SSL_SENT_SHUTDOWN) != 0;
}

bool tls_engine::peer_has_shut_down() const {
    return (::SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0;
}

} // namespace weft::detail
