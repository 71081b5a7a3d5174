#pragma once

#include "tls_sessions.hpp"

#include <string>

#include <openssl/ssl.h>

namespace weft::detail {

/// What lies in each SSL_CTX of ours, and goes with it, whoever holds it last.
struct tls_context_data {
    std::string alpn_protocols; ///< as the wire has it: a length, a name, ...
    tls_sessions sessions;

    /// Null: the context was made elsewhere.
    static tls_context_data* of(SSL_CTX const*);
};

/// Says under which name the sessions of a client's stream are kept. The name must outlive the
/// stream.
void set_session_name(SSL*, std::string const*);

} // namespace weft::detail
