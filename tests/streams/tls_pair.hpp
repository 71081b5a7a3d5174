#pragma once

#include "certificates.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/tls.hpp>

#include <optional>
#include <string>
#include <utility>

#include <openssl/err.h>
#include <openssl/ssl.h>

/// What tests of TLS share.
namespace weft::test {

struct tls_pair {
    tls_stream client;
    tls_stream server;
};

struct tls_pair_options {
    std::optional<tls_context> client{}; ///< not given: trusts the tests' authority
    std::optional<tls_context> server{}; ///< not given: has a certificate for localhost
    bool standard_compatible = true;
    std::string hostname = "localhost";
};

inline tls_context trusting_client(tls_client_options options = {}) {
    if (options.ca_file.empty()) options.ca_file = certificates::get().authority.chain;
    return tls_context::client(std::move(options));
}

inline tls_context trusted_server(tls_server_options options = {}) {
    auto const& files = certificates::get().server;
    return tls_context::server(files.chain, files.key, std::move(options));
}

inline tls_context only(tls_context context, int version) {
    ::SSL_CTX_set_min_proto_version(context.native(), version);
    ::SSL_CTX_set_max_proto_version(context.native(), version);
    return context;
}

/// Shakes hands over two ends of something; a failure of either side leaves as an exception_group.
inline tls_pair shake_hands(any_byte_stream client_end, any_byte_stream server_end,
                            tls_pair_options options = {}) {
    if (!options.client) options.client = trusting_client();
    if (!options.server) options.server = trusted_server();
    std::optional<tls_stream> client;
    std::optional<tls_stream> server;
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            server.emplace(tls_stream::wrap(std::move(server_end),
                                            {.server_side = true,
                                             .context = options.server,
                                             .standard_compatible = options.standard_compatible}));
        });
        client.emplace(tls_stream::wrap(std::move(client_end),
                                        {.server_side = false,
                                         .hostname = options.hostname,
                                         .context = options.client,
                                         .standard_compatible = options.standard_compatible}));
    });
    return {*std::move(client), *std::move(server)};
}

/// The same over a network in memory.
inline tls_pair shake_hands(memory_network& network, tls_pair_options options = {}) {
    auto [client, server] = network.make_pair();
    return shake_hands(std::move(client), std::move(server), std::move(options));
}

inline tls_pair shake_hands(tls_pair_options options = {}) {
    memory_network network;
    return shake_hands(network, std::move(options));
}

/// Good-bye from both sides.
inline void close_both(tls_pair& pair) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] { pair.server.close(); });
        pair.client.close();
    });
}

} // namespace weft::test
