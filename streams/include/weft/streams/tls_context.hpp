#pragma once

#ifdef WEFT_WITHOUT_TLS
#error "this weft was built without TLS (-Dtls=disabled, or no OpenSSL)"
#endif

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct ssl_ctx_st; // OpenSSL's SSL_CTX

namespace weft {

/// A version of TLS, as OpenSSL's number (TLS1_3_VERSION) or by its name ("TLSv1.3"). Errors:
/// std::invalid_argument (no such name)
class tls_protocol_version {
public:
    constexpr tls_protocol_version(int number) : number_(number) {}
    tls_protocol_version(char const* name) : tls_protocol_version(std::string_view(name)) {}
    tls_protocol_version(std::string const& name) : tls_protocol_version(std::string_view(name)) {}
    tls_protocol_version(std::string_view name);

    constexpr int number() const { return number_; }

private:
    int number_;
};

inline constexpr tls_protocol_version tls_1_2{0x0303};
inline constexpr tls_protocol_version tls_1_3{0x0304};

struct tls_client_options {
    std::vector<std::string> alpn_protocols{}; ///< offered, best first: "h2", "http/1.1"
    std::string ca_file{};                     ///< PEM; empty: those that the system trusts
    bool verify = true; ///< the chain and the host name; false: anybody may answer
    tls_protocol_version minimum_version = tls_1_2;
    std::string cert_chain_file{}; ///< PEM: what the client shows if the server asks
    std::string key_file{};        ///< PEM; empty: it is in cert_chain_file
};

struct tls_server_options {
    std::vector<std::string> alpn_protocols{}; ///< accepted, best first
    std::string client_ca_file{};              ///< PEM; given: clients are asked for a certificate
    bool require_client_certificate = false;   ///< they are refused without one; by the system's
                                               ///< authorities, if there is no client_ca_file
    tls_protocol_version minimum_version = tls_1_2;
};

/// What TLS streams have in common: certificates, who is trusted, which versions and protocols.
///
/// A copy is another handle of the same thing. Clients remember the sessions of the hosts that they
/// have verified, and resume them. Files are read at once, on the calling thread. A key that is
/// encrypted is refused: nobody is asked for a password.
///
/// Threads  used by any number of streams on any threads; changed by native() before it is used
/// Errors   tls_error (a file that cannot be read or used, naming it); std::invalid_argument
/// Source   Python ssl.SSLContext; create_default_context
class tls_context {
public:
    static tls_context client(tls_client_options options = {});
    static tls_context server(std::string cert_chain_file, std::string key_file,
                              tls_server_options options = {});

    /// For what is not among the options. It stays the context's. Callbacks set by it are called with
    /// a stream locked: they must not wait for anything (suspend their task), nor throw; one that
    /// waits ends the process, which names the call.
    ssl_ctx_st* native() const { return handle_.get(); }

private:
    explicit tls_context(std::shared_ptr<ssl_ctx_st> handle) : handle_(std::move(handle)) {}

    std::shared_ptr<ssl_ctx_st> handle_;
};

} // namespace weft
