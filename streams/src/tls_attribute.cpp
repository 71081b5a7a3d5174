#include "tls_connection.hpp"
#include "tls_failure.hpp"

#include <weft/streams/tls_attribute.hpp>

#include <ctime>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include <arpa/inet.h>
#include <openssl/x509v3.h>

namespace weft::detail {

namespace {

struct free_openssl {
    void operator()(X509* certificate) const { ::X509_free(certificate); }
    void operator()(BIO* bio) const { ::BIO_free(bio); }
    void operator()(BIGNUM* number) const { ::BN_free(number); }
    void operator()(GENERAL_NAMES* names) const { ::GENERAL_NAMES_free(names); }
    void operator()(char* text) const { ::OPENSSL_free(text); }
};
template <class T> using openssl_ptr = std::unique_ptr<T, free_openssl>;

openssl_ptr<X509> certificate_of_peer(SSL const* ssl) {
    return openssl_ptr<X509>(::SSL_get1_peer_certificate(ssl));
}

template <class Print> std::string print(Print into) {
    openssl_ptr<BIO> const bio(::BIO_new(::BIO_s_mem()));
    if (!bio) throw_tls_error("no memory");
    into(bio.get());
    char* data = nullptr;
    long const size = ::BIO_get_mem_data(bio.get(), &data);
    return std::string(data, std::size_t(size));
}

std::string print_name(X509_NAME const* name) {
    return print([name](BIO* to) { // RFC 2253, with UTF-8 as it is
        ::X509_NAME_print_ex(to, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    });
}

std::chrono::system_clock::time_point to_time(ASN1_TIME const* time) {
    std::tm parts{};
    if (::ASN1_TIME_to_tm(time, &parts) != 1) return {};
    return std::chrono::system_clock::from_time_t(::timegm(&parts));
}

std::string serial_number(X509 const* certificate) {
    openssl_ptr<BIGNUM> const number(
        ::ASN1_INTEGER_to_BN(::X509_get0_serialNumber(certificate), nullptr));
    openssl_ptr<char> const text(number ? ::BN_bn2hex(number.get()) : nullptr);
    return text ? std::string(text.get()) : std::string();
}

// As GENERAL_NAME_print() has it, but addresses look like those of io.
std::string describe(GENERAL_NAME* name) {
    std::string text = print([name](BIO* to) { ::GENERAL_NAME_print(to, name); });
    if (name->type != GEN_IPADD) return text;
    ASN1_OCTET_STRING const* const octets = name->d.iPAddress;
    char readable[INET6_ADDRSTRLEN];
    int const family = ::ASN1_STRING_length(octets) == 4 ? AF_INET : AF_INET6;
    if (::inet_ntop(family, ::ASN1_STRING_get0_data(octets), readable, sizeof readable) == nullptr)
        return text;
    return std::string("IP:") + readable;
}

std::vector<std::string> alternative_names(X509 const* certificate) {
    std::vector<std::string> result;
    openssl_ptr<GENERAL_NAMES> const names(static_cast<GENERAL_NAMES*>(
        ::X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
    for (int at = 0; names && at < sk_GENERAL_NAME_num(names.get()); ++at)
        result.push_back(describe(sk_GENERAL_NAME_value(names.get(), at)));
    return result;
}

std::optional<tls_certificate> peer_certificate(SSL const* ssl) {
    openssl_ptr<X509> const certificate = certificate_of_peer(ssl);
    if (!certificate || (::SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) == 0) return std::nullopt;
    X509 const* const x509 = certificate.get();
    return tls_certificate{
        .subject = print_name(::X509_get_subject_name(x509)),
        .issuer = print_name(::X509_get_issuer_name(x509)),
        .alternative_names = alternative_names(x509),
        .not_before = to_time(::X509_get0_notBefore(x509)),
        .not_after = to_time(::X509_get0_notAfter(x509)),
        .serial_number = serial_number(x509),
    };
}

std::optional<bytes> peer_certificate_binary(SSL const* ssl) {
    openssl_ptr<X509> const certificate = certificate_of_peer(ssl);
    if (!certificate) return std::nullopt;
    int const size = ::i2d_X509(certificate.get(), nullptr);
    if (size < 0) throw_tls_error("the peer's certificate cannot be encoded");
    bytes der(std::size_t(size), '\0');
    auto* place = reinterpret_cast<unsigned char*>(der.data());
    ::i2d_X509(certificate.get(), &place);
    return der;
}

std::optional<std::string> alpn_protocol(SSL const* ssl) {
    unsigned char const* name = nullptr;
    unsigned length = 0;
    ::SSL_get0_alpn_selected(ssl, &name, &length);
    if (length == 0) return std::nullopt;
    return std::string(reinterpret_cast<char const*>(name), length);
}

// The first Finished of the handshake: the client's, but the server's when a session was resumed.
std::optional<bytes> tls_unique(SSL const* ssl, bool server_side) {
    if (::SSL_version(ssl) >= TLS1_3_VERSION) return std::nullopt;
    char text[EVP_MAX_MD_SIZE];
    bool const resumed = ::SSL_session_reused(ssl) == 1;
    std::size_t const length = resumed == server_side
                                   ? ::SSL_get_finished(ssl, text, sizeof text)
                                   : ::SSL_get_peer_finished(ssl, text, sizeof text);
    return bytes(text, length);
}

std::optional<std::vector<std::string>> shared_ciphers(SSL const* ssl, bool server_side) {
    if (!server_side) return std::nullopt;
    STACK_OF(SSL_CIPHER)* const offered = ::SSL_get_client_ciphers(ssl);
    STACK_OF(SSL_CIPHER)* const ours = ::SSL_get_ciphers(ssl);
    std::vector<std::string> result;
    for (int at = 0; offered != nullptr && at < sk_SSL_CIPHER_num(offered); ++at) {
        SSL_CIPHER const* const each = sk_SSL_CIPHER_value(offered, at);
        if (sk_SSL_CIPHER_find(ours, const_cast<SSL_CIPHER*>(each)) >= 0)
            result.emplace_back(::SSL_CIPHER_get_name(each));
    }
    return result;
}

} // namespace

// What the stream underneath knows of itself, as long as it is underneath: unwrap() gives it away
// under the same lock, to somebody who may destroy it at once. A user's getter that waits would
// keep the lock, and with it every worker that wants it: the ban names its call.
attribute_map tls_connection::attributes_of_transport() const {
    std::lock_guard const guard(lock_);
    no_waiting const ban;
    if (is_unwrapped_) return {};
    return transport_.extra_attributes().surround([this](std::function<void()> const& ask) {
        std::lock_guard const inner(lock_);
        if (is_unwrapped_)
            throw typed_attribute_lookup_error("the stream under TLS has been given away");
        no_waiting const inner_ban;
        ask();
    });
}

// Each under the lock, whatever the stream is doing.
attribute_map tls_connection::attributes() const {
    auto const ask = [this](auto question) {
        return [this, question] {
            std::lock_guard const guard(lock_);
            auto const answer = question(static_cast<SSL const*>(engine_.native()));
            clear_tls_errors();
            return answer;
        };
    };
    bool const serves = engine_.server_side();
    bool const standard = standard_compatible_;
    namespace attribute = tls_attribute;
    attribute_map result = attributes_of_transport();
    result.update({
        {attribute::alpn_protocol, ask(alpn_protocol)},
        {attribute::channel_binding_tls_unique,
         ask([serves](SSL const* ssl) { return tls_unique(ssl, serves); })},
        {attribute::cipher,
         ask([](SSL const* ssl) { return std::string(::SSL_get_cipher_name(ssl)); })},
        {attribute::peer_certificate, ask(peer_certificate)},
        {attribute::peer_certificate_binary, ask(peer_certificate_binary)},
        {attribute::server_side, [serves] { return serves; }},
        {attribute::shared_ciphers,
         ask([serves](SSL const* ssl) { return shared_ciphers(ssl, serves); })},
        {attribute::ssl_object, [this] { return engine_.native(); }},
        {attribute::standard_compatible, [standard] { return standard; }},
        {attribute::tls_version,
         ask([](SSL const* ssl) { return std::string(::SSL_get_version(ssl)); })},
    });
    return result;
}

} // namespace weft::detail
