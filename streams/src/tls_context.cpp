#include <weft/streams/tls_context.hpp>

#include "tls_context_data.hpp"
#include "tls_failure.hpp"

#include <stdexcept>

#include <openssl/err.h>

namespace weft {

namespace detail {

namespace {

// Forward secrecy and authenticated encryption; those of TLS 1.3 are as good by themselves.
constexpr char const* ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20";

void free_context_data(void*, void* data, CRYPTO_EX_DATA*, int, long, void*) {
    delete static_cast<tls_context_data*>(data);
}

int context_data_index() {
    static int const index = ::CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, nullptr, nullptr,
                                                       nullptr, free_context_data);
    return index;
}

int session_name_index() {
    static int const index =
        ::CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, nullptr, nullptr, nullptr, nullptr);
    return index;
}

// Only sessions of peers that were verified are kept, so that one that is resumed is verified, too.
int keep_session(SSL* ssl, SSL_SESSION* session) noexcept {
    auto const* const name =
        static_cast<std::string const*>(::SSL_get_ex_data(ssl, session_name_index()));
    tls_context_data* const data = tls_context_data::of(::SSL_get_SSL_CTX(ssl));
    bool const verified = (::SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0 &&
                          ::SSL_get_verify_result(ssl) == X509_V_OK;
    if (name == nullptr || data == nullptr || !verified) return 0;
    try {
        data->sessions.put(*name, ssl_session(session));
        return 1;   // it is ours now
    } catch (...) { // no memory, which put() has given back: no session, no harm; OpenSSL is C
        return 1;
    }
}

// The server's order counts. Without a common protocol there is no connection (RFC 7301, 3.2).
int choose_protocol(SSL*, unsigned char const** chosen, unsigned char* length,
                    unsigned char const* offered, unsigned offered_length, void* own) noexcept {
    auto const& ours = static_cast<tls_context_data*>(own)->alpn_protocols;
    unsigned char* found = nullptr;
    int const result =
        ::SSL_select_next_proto(&found, length, reinterpret_cast<unsigned char const*>(ours.data()),
                                unsigned(ours.size()), offered, offered_length);
    if (result != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

std::string alpn_on_the_wire(std::vector<std::string> const& protocols) {
    std::string result;
    for (std::string const& each : protocols) {
        if (each.empty() || each.size() > 255)
            throw std::invalid_argument("a protocol for ALPN has 1 to 255 octets: '" + each + "'");
        result += char(each.size());
        result += each;
    }
    return result;
}

std::shared_ptr<SSL_CTX> make_context(SSL_METHOD const* method, tls_protocol_version minimum) {
    ::ERR_clear_error();
    std::shared_ptr<SSL_CTX> const made(::SSL_CTX_new(method),
                                        [](SSL_CTX* context) { ::SSL_CTX_free(context); });
    if (!made) throw_tls_error("cannot make a context");
    SSL_CTX* const context = made.get();
    auto data = std::make_unique<tls_context_data>();
    if (::SSL_CTX_set_ex_data(context, context_data_index(), data.get()) != 1)
        throw_tls_error("cannot make a context");
    data.release();
    ::SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                       SSL_OP_CIPHER_SERVER_PREFERENCE);
    ::SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (::SSL_CTX_set_cipher_list(context, ciphers) != 1) throw_tls_error("no ciphers");
    if (::SSL_CTX_set_min_proto_version(context, minimum.number()) != 1)
        throw std::invalid_argument("there is no TLS version with the number " +
                                    std::to_string(minimum.number()));
    return made;
}

// OpenSSL would ask at the terminal, or at stdin, and wait there: nobody may be there to answer.
int refuse_password(char*, int, int, void* is_asked) noexcept {
    if (is_asked != nullptr) *static_cast<bool*>(is_asked) = true;
    return -1;
}

void use_certificate(SSL_CTX* context, std::string const& chain_file, std::string const& key_file) {
    bool is_encrypted = false;
    ::SSL_CTX_set_default_passwd_cb(context, refuse_password);
    ::SSL_CTX_set_default_passwd_cb_userdata(context, &is_encrypted);
    if (::SSL_CTX_use_certificate_chain_file(context, chain_file.c_str()) != 1)
        throw_tls_error("cannot use the certificate chain in '" + chain_file + "'");
    std::string const& key = key_file.empty() ? chain_file : key_file;
    int const result = ::SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM);
    ::SSL_CTX_set_default_passwd_cb_userdata(context, nullptr); // keys that come by native()
    if (result != 1)
        throw_tls_error("cannot use the private key in '" + key +
                        (is_encrypted ? "', which is encrypted" : "'"));
}

void trust(SSL_CTX* context, std::string const& ca_file) {
    if (ca_file.empty()) {
        if (::SSL_CTX_set_default_verify_paths(context) != 1)
            throw_tls_error("cannot use the system's certificates");
    } else if (::SSL_CTX_load_verify_locations(context, ca_file.c_str(), nullptr) != 1) {
        throw_tls_error("cannot use the certificates in '" + ca_file + "'");
    }
    ::ERR_clear_error(); // a default that does not exist is no failure, but noted
}

void ask_for_certificate(SSL_CTX* context, tls_server_options const& options) {
    trust(context, options.client_ca_file);
    if (!options.client_ca_file.empty()) { // which tells clients what to choose by
        auto* const names = ::SSL_load_client_CA_file(options.client_ca_file.c_str());
        if (names == nullptr)
            throw_tls_error("cannot use the certificates in '" + options.client_ca_file + "'");
        ::SSL_CTX_set_client_CA_list(context, names);
    }
    int const mode = options.require_client_certificate
                         ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                         : SSL_VERIFY_PEER;
    ::SSL_CTX_set_verify(context, mode, nullptr);
}

} // namespace

tls_context_data* tls_context_data::of(SSL_CTX const* context) {
    return static_cast<tls_context_data*>(::SSL_CTX_get_ex_data(context, context_data_index()));
}

void set_session_name(SSL* ssl, std::string const* name) {
    ::SSL_set_ex_data(ssl, session_name_index(), const_cast<std::string*>(name));
}

} // namespace detail

tls_protocol_version::tls_protocol_version(std::string_view name) {
    struct {
        std::string_view name;
        int number;
    } constexpr known[] = {{"TLSv1", TLS1_VERSION},
                           {"TLSv1.1", TLS1_1_VERSION},
                           {"TLSv1.2", TLS1_2_VERSION},
                           {"TLSv1.3", TLS1_3_VERSION}};
    for (auto const& each : known)
        if (each.name == name) {
            number_ = each.number;
            return;
        }
    throw std::invalid_argument("there is no TLS version '" + std::string(name) + "'");
}

tls_context tls_context::client(tls_client_options options) {
    auto made = detail::make_context(::TLS_client_method(), options.minimum_version);
    SSL_CTX* const context = made.get();
    if (options.verify) {
        ::SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
        detail::trust(context, options.ca_file);
    }
    if (std::string const wire = detail::alpn_on_the_wire(options.alpn_protocols); !wire.empty())
        ::SSL_CTX_set_alpn_protos(context, reinterpret_cast<unsigned char const*>(wire.data()),
                                  unsigned(wire.size()));
    if (!options.cert_chain_file.empty())
        detail::use_certificate(context, options.cert_chain_file, options.key_file);
    ::SSL_CTX_set_session_cache_mode(context,
                                     SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    ::SSL_CTX_sess_set_new_cb(context, detail::keep_session);
    return tls_context(std::move(made));
}

tls_context tls_context::server(std::string cert_chain_file, std::string key_file,
                                tls_server_options options) {
    auto made = detail::make_context(::TLS_server_method(), options.minimum_version);
    SSL_CTX* const context = made.get();
    detail::use_certificate(context, cert_chain_file, key_file);
    ::SSL_CTX_set_dh_auto(context, 1);
    constexpr unsigned char sessions_of[] = "weft"; // needed once clients show certificates
    ::SSL_CTX_set_session_id_context(context, sessions_of, sizeof sessions_of - 1);
    bool const asks = options.require_client_certificate || !options.client_ca_file.empty();
    if (asks) detail::ask_for_certificate(context, options);
    auto* const data = detail::tls_context_data::of(context);
    data->alpn_protocols = detail::alpn_on_the_wire(options.alpn_protocols);
    if (!data->alpn_protocols.empty())
        ::SSL_CTX_set_alpn_select_cb(context, detail::choose_protocol, data);
    return tls_context(std::move(made));
}

} // namespace weft
