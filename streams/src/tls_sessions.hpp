#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <openssl/ssl.h>

namespace weft::detail {

struct free_ssl_session {
    void operator()(SSL_SESSION* session) const { ::SSL_SESSION_free(session); }
};
using ssl_session = std::unique_ptr<SSL_SESSION, free_ssl_session>;

/// What a client remembers of hosts it has verified, to save the next handshake the half of it.
///
/// Tickets of TLS 1.3 are given out once (RFC 8446, C.4). The host that was not asked for longest
/// is forgotten first.
///
/// Threads  any
class tls_sessions {
public:
    void put(std::string const& host, ssl_session session);
    ssl_session take(std::string const& host); ///< null: none

private:
    static constexpr std::size_t most_hosts = 256;
    static constexpr std::size_t most_of_a_host = 4;

    struct host {
        std::string name;
        std::vector<ssl_session> sessions; // the newest last
    };

    std::mutex mutex_;
    std::list<host> hosts_; // the one asked for last is first
    std::map<std::string, std::list<host>::iterator> by_name_;
};

} // namespace weft::detail
