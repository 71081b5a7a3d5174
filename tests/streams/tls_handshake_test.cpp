#include <weft/streams/tls_context.hpp>

#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

TEST_SUITE_BEGIN("streams.tls_handshake");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::memory_network;
using weft::tls_context;
using weft::tls_stream;
namespace attribute = weft::tls_attribute;

// What the client says that is wrong, and the server.
struct reasons {
    std::string client;
    std::string server;
};

template <class Call> std::string reason_of(Call&& call) {
    try {
        call();
    } catch (weft::tls_error const& failure) {
        check(::ERR_peek_error() == 0, "nothing is left in the error queue");
        return failure.reason();
    } catch (std::exception const& failure) {
        return std::string("not TLS: ") + failure.what();
    }
    return "nothing";
}

reasons fail_to_shake_hands(tls_context client, tls_context server,
                            std::string const& hostname = "localhost") {
    reasons result;
    memory_network network;
    auto ends = network.make_pair();
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            result.server = reason_of([&] {
                auto stream = tls_stream::wrap(std::move(ends.second), {.context = server});
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

tls_context server_with(certificate_files const& files, weft::tls_server_options options = {}) {
    return tls_context::server(files.chain, files.key, std::move(options));
}

void expect(std::string const& text, std::string const& part) {
    check(text.find(part) != text.npos, "'" + part + "' in '" + text + "'");
}

void run_few(std::function<void()> const& body) {
    run_test({.workers = {1, 2}, .seeds = {0}}, body);
}

bool was_resumed(tls_stream const& stream) {
    return ::SSL_session_reused(stream.extra(attribute::ssl_object)) == 1;
}

} // namespace

TEST_CASE("TL1: names that the certificate has, as users write them") {
    run_few([] {
        for (char const* const name :
             {"localhost", "LOCALHOST", "localhost.", "127.0.0.1", "::1", "www.example.org",
              "stra\u00dfe.example", "xn--strae-oqa.example"}) {
            tls_pair pair = shake_hands({.hostname = name});
            close_both(pair);
        }
    });
}

TEST_CASE("TL1: names that it does not have: another host, IDNA 2003's, half a wildcard") {
    run_few([] {
        for (char const* const name : {"strasse.example", "example.org", "a.b.example.org",
                                       "127.0.0.2", "localhost.example"}) {
            reasons const why = fail_to_shake_hands(trusting_client(), trusted_server(), name);
            expect(why.client, "certificate verify failed: ");
            expect(why.client,
                   std::string(name) == "127.0.0.2" ? "IP address mismatch" : "hostname mismatch");
            expect(why.server, "alert");
        }
    });
}

TEST_CASE("TL1: a server name is asked for, but not an address") {
    run_few([] {
        for (std::string const name : {"localhost", "127.0.0.1"}) {
            tls_pair pair = shake_hands({.hostname = name});
            char const* const asked = ::SSL_get_servername(pair.server.extra(attribute::ssl_object),
                                                           TLSEXT_NAMETYPE_host_name);
            if (name == "localhost")
                check(asked != nullptr && std::string(asked) == name, "SNI");
            else
                check(asked == nullptr, "no SNI for an address");
            close_both(pair);
        }
    });
}

TEST_CASE(
    "TL2: certificates that are not trusted: another host, expired, self-signed, unknown issuer") {
    auto const& files = certificates::get();
    run_few([&] {
        expect(fail_to_shake_hands(trusting_client(), server_with(files.other_host)).client,
               "hostname mismatch");
        expect(fail_to_shake_hands(trusting_client(), server_with(files.expired)).client,
               "certificate has expired");
        expect(fail_to_shake_hands(trusting_client(), server_with(files.self_signed)).client,
               "self-signed certificate");
        reasons const unknown = fail_to_shake_hands(tls_context::client(), trusted_server());
        expect(unknown.client, "unable to get local issuer certificate");
        expect(unknown.server, "alert unknown ca");
    });
}

TEST_CASE("TL1: without verification anybody may answer") {
    run_few([] {
        tls_pair pair = shake_hands({.client = tls_context::client({.verify = false}),
                                     .server = server_with(certificates::get().expired),
                                     .hostname = "whoever.example"});
        check(!pair.client.extra(attribute::peer_certificate), "nobody looked at it");
        check(pair.client.extra(attribute::peer_certificate_binary).has_value(), "but it is there");
        close_both(pair);
    });
}

TEST_CASE("client certificates: required and missing, of the wrong issuer, and right") {
    auto const& files = certificates::get();
    weft::tls_server_options const strict{.client_ca_file = files.authority.chain,
                                          .require_client_certificate = true};
    auto const client_with = [&](certificate_files const& own) {
        return trusting_client({.cert_chain_file = own.chain, .key_file = own.key});
    };
    run_few([&] {
        for (int const version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
            auto const server = only(trusted_server(strict), version);
            expect(fail_to_shake_hands(trusting_client(), server).server,
                   "peer did not return a certificate");
            expect(fail_to_shake_hands(client_with(files.untrusted_client), server).server,
                   "certificate verify failed: unable to get local issuer certificate");
            tls_pair pair = shake_hands({.client = client_with(files.client), .server = server});
            pair.client.send("x"); // in TLS 1.3 the server knows only now
            check(pair.server.receive() == "x", "welcome");
            auto const shown = pair.server.extra(attribute::peer_certificate);
            check(shown && shown->subject == "CN=client", "who it is");
            close_both(pair);
        }
        auto const lenient = trusted_server({.client_ca_file = files.authority.chain});
        tls_pair pair = shake_hands({.server = lenient});
        check(!pair.server.extra(attribute::peer_certificate), "asked, but not shown");
        close_both(pair);
    });
}

TEST_CASE("versions that do not meet") {
    run_few([] {
        auto const old = only(trusting_client(), TLS1_2_VERSION);
        auto const modern = trusted_server({.minimum_version = weft::tls_1_3});
        reasons const why = fail_to_shake_hands(old, modern);
        expect(why.client, "alert protocol version");
        expect(why.server, "unsupported protocol");
        reasons const other = fail_to_shake_hands(trusting_client({.minimum_version = "TLSv1.3"}),
                                                  only(trusted_server(), TLS1_2_VERSION));
        expect(other.server, "unsupported protocol");
    });
}

TEST_CASE("ALPN: the server's order counts, and nothing in common is an error") {
    run_few([] {
        auto const server = trusted_server({.alpn_protocols = {"h2", "http/1.1"}});
        tls_pair both = shake_hands(
            {.client = trusting_client({.alpn_protocols = {"http/1.1", "h2"}}), .server = server});
        check(both.client.extra(attribute::alpn_protocol) == "h2", "agreed");
        check(both.server.extra(attribute::alpn_protocol) == "h2", "both know");
        close_both(both);
        tls_pair none = shake_hands({.server = server});
        check(!none.client.extra(attribute::alpn_protocol), "not asked for");
        close_both(none);
        reasons const why =
            fail_to_shake_hands(trusting_client({.alpn_protocols = {"irc"}}), server);
        expect(why.client, "alert no application protocol");
        check_throws<std::invalid_argument>(
            [] { trusting_client({.alpn_protocols = {std::string(256, 'x')}}); }, "too long");
        check_throws<std::invalid_argument>([] { trusted_server({.alpn_protocols = {""}}); },
                                            "too short");
    });
}

TEST_CASE("sessions are resumed, by the context and the host") {
    for (int const version : {TLS1_2_VERSION, TLS1_3_VERSION})
        run_few([version] {
            auto const client = only(trusting_client(), version);
            auto const server = only(trusted_server(), version);
            auto const talk = [&](std::string const& host) {
                tls_pair pair = shake_hands({.client = client, .server = server, .hostname = host});
                pair.server.send("x"); // with the tickets before it
                check(pair.client.receive() == "x", "it works");
                check(pair.client.extra(attribute::peer_certificate).has_value(), "who it is");
                bool const resumed = was_resumed(pair.client);
                close_both(pair);
                return resumed;
            };
            check(!talk("localhost"), "the first time");
            check(talk("localhost"), "the second time");
            check(talk("localhost"), "the third time");
            check(!talk("www.example.org"), "another host");
        });
}

TEST_CASE("a session of a peer that was not verified is not kept") {
    run_few([] {
        auto const client = tls_context::client({.verify = false});
        for (int time = 0; time < 2; ++time) {
            tls_pair pair = shake_hands({.client = client});
            pair.server.send("x");
            check(pair.client.receive() == "x", "it works");
            check(!was_resumed(pair.client), "anew");
            close_both(pair);
        }
    });
}

TEST_CASE("TL14: attributes of both sides, and of the stream underneath") {
    run_few([] {
        tls_pair pair = shake_hands();
        for (tls_stream const* const each : {&pair.client, &pair.server}) {
            check(each->extra(attribute::tls_version) == "TLSv1.3", "the version");
            check(each->extra(attribute::cipher).starts_with("TLS_"), "the cipher");
            check(each->extra(attribute::standard_compatible), "standard");
            check(!each->extra(attribute::channel_binding_tls_unique), "none in TLS 1.3");
            check(each->extra(weft::socket_attribute::local_port) >= 49152, "from underneath");
        }
        check(!pair.client.extra(attribute::shared_ciphers), "the client is not told");
        auto const shared = pair.server.extra(attribute::shared_ciphers);
        check(shared && !shared->empty(), "the server is");
        auto const certificate = pair.client.extra(attribute::peer_certificate);
        check(certificate.has_value(), "there is one");
        check(certificate->subject == "CN=server" && certificate->issuer == "CN=authority",
              "names");
        std::vector<std::string> const names{"DNS:localhost", "IP:127.0.0.1", "IP:::1",
                                             "DNS:*.example.org", "DNS:xn--strae-oqa.example"};
        check(certificate->alternative_names == names, "alternative names");
        auto const now = std::chrono::system_clock::now();
        check(certificate->not_before < now && certificate->not_after > now + 20h, "valid");
        auto const der = pair.client.extra(attribute::peer_certificate_binary);
        check(der && der->starts_with("\x30\x82"), "DER");
        check(!pair.server.extra(attribute::peer_certificate_binary), "the client showed none");
        close_both(pair);
    });
}

TEST_CASE("TL14: before TLS 1.3 both sides know the same unique value, also when resumed") {
    run_few([] {
        auto const client = only(trusting_client(), TLS1_2_VERSION);
        auto const server = trusted_server();
        std::string last;
        for (bool const resumed : {false, true}) {
            tls_pair pair = shake_hands({.client = client, .server = server});
            check(was_resumed(pair.client) == resumed, "as expected");
            auto const ours = pair.client.extra(attribute::channel_binding_tls_unique);
            check(ours && ours->size() == 12, "RFC 5246: 12 octets");
            check(ours == pair.server.extra(attribute::channel_binding_tls_unique), "the same");
            check(*ours != last, "of this connection");
            last = *ours;
            close_both(pair);
        }
    });
}

TEST_CASE("A7: attributes can be asked for while both directions are in use") {
    run_test({.workers = {4}, .seeds = {}}, [] {
        tls_pair pair = shake_hands();
        std::string const data(1'000'000, 'x');
        std::atomic<bool> done = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.client.send(data); });
            group.start_soon([&] {
                while (!done) {
                    check(pair.client.extra(attribute::tls_version) == "TLSv1.3", "the client");
                    check(pair.server.extra(attribute::cipher).starts_with("TLS_"), "the server");
                    weft::lowlevel::checkpoint();
                }
            });
            for (std::size_t left = data.size(); left != 0;)
                left -= pair.server.receive(left).size();
            done = true;
        });
        close_both(pair);
    });
}

TEST_CASE("A7: attributes can be asked for while unwrap() gives the stream underneath away") {
    run_test({.workers = {2, 4}, .seeds = {0}, .times = 10}, [] {
        tls_pair pair = shake_hands();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.server.unwrap(); }); // and the stream is destroyed
            group.start_soon([&] {
                for (bool is_there = true; is_there;) {
                    try {
                        check(pair.client.extra(weft::socket_attribute::remote_port) != 0, "known");
                    } catch (weft::typed_attribute_lookup_error const&) {
                        is_there = false;
                    } catch (weft::closed_resource_error const&) {
                        is_there = false;
                    }
                    check(pair.client.extra(attribute::tls_version) == "TLSv1.3", "still known");
                    weft::lowlevel::checkpoint();
                }
            });
            pair.client.unwrap();
        });
    });
}

TEST_CASE("plain text, on either side") {
    run_few([] {
        memory_network network;
        auto ends = network.make_pair();
        ends.first.send("GET / HTTP/1.0\r\n\r\n");
        expect(reason_of([&] { tls_stream::wrap(ends.second, {.context = trusted_server()}); }),
               "http request");
        auto others = network.make_pair();
        others.second.send("220 mail.example ready\r\n");
        expect(reason_of([&] {
                   tls_stream::wrap(others.first,
                                    {.hostname = "localhost", .context = trusting_client()});
               }),
               "wrong version number");
    });
}

TEST_CASE("TL19: a peer that vanishes in the middle of the handshake, wherever it does") {
    run_test({.workers = {1}, .seeds = {0, 1, 2}}, [] {
        for (bool const standard : {true, false})
            for (std::size_t after = 0; after < 200; after += 40) {
                memory_network network;
                auto ends = network.make_pair();
                auto relay = network.make_pair();
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon([&] { // the client's octets get so far
                        std::string const hello = relay.second.receive();
                        ends.first.send(hello.substr(0, after));
                        ends.first.close();
                        relay.second.close();
                    });
                    group.start_soon([&] {
                        std::string kind;
                        try {
                            tls_stream::wrap(ends.second, {.context = trusted_server(),
                                                           .standard_compatible = standard});
                        } catch (weft::broken_resource_error const&) {
                            kind = "broken";
                        } catch (weft::end_of_stream const&) {
                            kind = "end";
                        }
                        check(kind == (standard ? "broken" : "end"), "TL5: " + kind);
                        ends.second.close(); // TL2: that is up to the caller
                    });
                    check_throws<weft::error>(
                        [&] {
                            tls_stream::wrap(relay.first, {.hostname = "localhost",
                                                           .context = trusting_client()});
                        },
                        "nobody there");
                });
            }
    });
}

TEST_CASE("files that are not there, and what they contain") {
    auto const& files = certificates::get();
    auto const why = [](auto make) { return reason_of(make); };
    expect(why([&] { tls_context::server("nowhere.pem", files.server.key); }), "'nowhere.pem'");
    expect(why([&] { tls_context::server(files.server.chain, "nowhere.key"); }), "'nowhere.key'");
    expect(why([&] { tls_context::server(files.server.chain, files.client.key); }), "mismatch");
    expect(why([&] { tls_context::client({.ca_file = "nowhere.pem"}); }), "'nowhere.pem'");
    CHECK_THROWS_AS(weft::tls_protocol_version("SSLv2"), std::invalid_argument);
}
