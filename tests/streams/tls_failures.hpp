#pragma once

#include "tls_pair.hpp"

#include <exception>
#include <string>
#include <utility>

/// What tests of TLS that fails share.
namespace weft::test {

/// OpenSSL's reason in the tls_error that the call throws; else what it threw instead, or "nothing".
template <class Call> std::string reason_of(Call&& call) {
    try {
        call();
    } catch (tls_error const& failure) {
        check(::ERR_peek_error() == 0, "nothing is left in the error queue");
        check(failure.code() != 0, "there is a code");
        return failure.reason();
    } catch (std::exception const& failure) {
        return std::string("not TLS: ") + failure.what();
    }
    return "nothing";
}

/// What the client says that is wrong, and the server.
struct reasons {
    std::string client;
    std::string server;
};

inline reasons fail_to_shake_hands(tls_context client, tls_context server,
                                   std::string const& hostname = "localhost") {
    reasons result;
    memory_network network;
    auto ends = network.make_pair();
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            result.server = reason_of([&] {
                auto stream = tls_stream::wrap(std::move(ends.second),
                                               {.server_side = true, .context = server});
                stream.receive(); // in TLS 1.3 it hears of what the client thinks only now
            });
        });
        result.client = reason_of([&] {
            auto stream =
                tls_stream::wrap(std::move(ends.first), {.hostname = hostname, .context = client});
            stream.receive();
        });
    });
    return result;
}

inline tls_context server_with(certificate_files const& files, tls_server_options options = {}) {
    return tls_context::server(files.chain, files.key, std::move(options));
}

inline void expect_part(std::string const& text, std::string const& part) {
    check(text.find(part) != text.npos, "'" + part + "' in '" + text + "'");
}

} // namespace weft::test
