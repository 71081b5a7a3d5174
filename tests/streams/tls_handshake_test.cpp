#include <weft/streams/tls_context.hpp>

#include "support/child_process.hpp"
#include "tls_failures.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <filesystem>
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

void run_few(std::function<void()> const& body) {
    run_test({.workers = {1, 2}, .seeds = {0}}, body);
}

bool was_resumed(tls_stream const& stream) {
    return ::SSL_session_reused(stream.extra(attribute::ssl_object)) == 1;
}

constexpr weft::typed_attribute<int> slow_number{"slow_number"};
constexpr weft::typed_attribute<int> question{"question"};

class passes_on : public weft::byte_stream {
public:
    explicit passes_on(weft::memory_network_stream of) : of_(std::move(of)) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override { return of_.receive_some(target); }
    void send(weft::bytes_view data) override { of_.send(data); }
    void send_eof() override { of_.send_eof(); }
    void close() override { of_.close(); }

private:
    weft::memory_network_stream of_;
};

// Counts how often it is asked.
class counts_questions final : public passes_on {
public:
    using passes_on::passes_on;
    weft::attribute_map extra_attributes() const override {
        return {{question, [this] { return ++questions_; }}};
    }

private:
    mutable int questions_ = 0;
};

// Waits where nobody may.
class slow_to_answer final : public passes_on {
public:
    using passes_on::passes_on;
    weft::attribute_map extra_attributes() const override {
        return {{slow_number, [] {
                     weft::sleep(1ms);
                     return 1;
                 }}};
    }
};

child_program const waits_in_a_getter("waits in a getter", [] {
    weft::run([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(slow_to_answer(std::move(ends.first)), std::move(ends.second));
        std::filesystem::remove_all(certificates::get().folder()); // nobody will after what comes
        pair.client.extra(slow_number);
    });
});

child_program const waits_in_a_callback("waits in a callback", [] {
    weft::run([] {
        auto const server = trusted_server();
        ::SSL_CTX_set_tlsext_servername_callback(server.native(), +[](SSL*, int*, void*) -> int {
            weft::sleep(1ms);
            return SSL_TLSEXT_ERR_OK;
        });
        auto const client = trusting_client();
        std::filesystem::remove_all(certificates::get().folder()); // nobody will after what comes
        shake_hands({.client = client, .server = server});
    });
});

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
            expect_part(why.client, "certificate verify failed: ");
            expect_part(why.client, std::string(name) == "127.0.0.2" ? "IP address mismatch"
                                                                     : "hostname mismatch");
            expect_part(why.server, "alert");
        }
    });
}

TEST_CASE("TL1: a name that begins with a dot is refused: any name under it would do") {
    run_few([] {
        for (char const* const name : {".example.org", ".example.org.", ".org", ".", ".."}) {
            memory_network network;
            auto [here, there] = network.make_pair();
            there.close();
            std::string why;
            try {
                tls_stream::wrap(here, {.hostname = name, .context = trusting_client()});
            } catch (std::invalid_argument const& failure) {
                why = failure.what();
            } catch (weft::error const& failure) {
                why = failure.what();
            }
            check(why == "the host name '" + std::string(name) + "' begins with a dot", why);
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
        expect_part(why.client, "alert no application protocol");
        check_throws<std::invalid_argument>(
            [] { trusting_client({.alpn_protocols = {std::string(256, 'x')}}); }, "too long");
        check_throws<std::invalid_argument>([] { trusted_server({.alpn_protocols = {""}}); },
                                            "too short");
    });
}

TEST_CASE("sessions are resumed, by the context and the host") {
    auto const expect = [](int version, bool standard) {
        auto const client = only(trusting_client(), version);
        auto const server = only(trusted_server(), version);
        auto const talk = [&](std::string const& host) {
            tls_pair pair = shake_hands({.client = client,
                                         .server = server,
                                         .standard_compatible = standard,
                                         .hostname = host});
            pair.server.send("x"); // with the tickets before it
            check(pair.client.receive() == "x", "it works");
            check(pair.client.extra(attribute::peer_certificate).has_value(), "who it is");
            bool const resumed = was_resumed(pair.client);
            close_both(pair);
            return resumed;
        };
        check(!talk("localhost"), "the first time");
        for (int time = 2; time != 5; ++time)
            check(talk("localhost"), "time " + std::to_string(time));
        check(!talk("www.example.org"), "another host");
    };
    for (int const version : {TLS1_2_VERSION, TLS1_3_VERSION})
        for (bool const standard : {true, false})
            run_few([&] { expect(version, standard); });
}

TEST_CASE("TL5: a session of a stream that was cut off, or broke, is not resumed") {
    auto const expect = [](bool standard) {
        auto const client = only(trusting_client(), TLS1_2_VERSION); // in TLS 1.3 there are several tickets
        auto const server = trusted_server();
        for (int time = 0; time < 2; ++time) {
            memory_network network;
            auto ends = network.make_pair();
            tls_pair pair = shake_hands(std::move(ends.first), ends.second,
                                        {.client = client, .server = server, .standard_compatible = standard});
            check(!was_resumed(pair.client), "anew");
            if (standard)
                ends.second.close();
            else
                ends.second.reset();
            check_throws<weft::broken_resource_error>([&] { pair.client.receive(); }, "cut off");
        }
    };
    for (bool const standard : {true, false})
        run_few([&] { expect(standard); });
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

TEST_CASE("A4: a TLS stream that was moved from has no attributes, so a fallback counts") {
    run_few([] {
        tls_pair pair = shake_hands();
        tls_stream const moved = std::move(pair.client);
        check(pair.client.extra(attribute::cipher, "none") == "none", "the fallback");
        check_throws<weft::typed_attribute_lookup_error>([&] { pair.client.extra(attribute::cipher); },
                                                         "no fallback");
    });
}

TEST_CASE("A3: the stream underneath is asked each time, and only for what is wanted") {
    run_few([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair =
            shake_hands(counts_questions(std::move(ends.first)), std::move(ends.second));
        check(pair.client.extra(attribute::tls_version) == "TLSv1.3", "its own");
        for (int time = 1; time <= 3; ++time)
            check(pair.client.extra(question) == time, "anew");
        weft::attribute_map const known = pair.client.extra_attributes();
        auto const* const ask = known.find(question);
        check(ask != nullptr && (*ask)() == 4 && (*ask)() == 5, "by the getter, too");
        close_both(pair);
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

TEST_CASE("A7: after unwrap() a getter does not ask the stream underneath, which may be gone") {
    run_few([] {
        tls_pair pair = shake_hands();
        weft::attribute_map const known = pair.client.extra_attributes();
        auto const* const ask_port = known.find(weft::socket_attribute::remote_port);
        check(ask_port != nullptr && (*ask_port)() != 0, "until then it does");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.server.unwrap(); });
            pair.client.unwrap(); // and it is destroyed
        });
        check_throws<weft::typed_attribute_lookup_error>([&] { (*ask_port)(); }, "given away");
        check((*known.find(attribute::tls_version))() == "TLSv1.3", "its own are still known");
    });
}

TEST_CASE("A7: a getter under TLS that waits ends the process, and names its call") {
    child_end const end = run_child("waits in a getter");
    INFO(end.output);
    CHECK(end.signal == SIGABRT);
    CHECK(end.says("would suspend in sleep inside a no_suspend scope"));
}

TEST_CASE("M7: a callback of OpenSSL's that waits ends the process, and names its call") {
    child_end const end = run_child("waits in a callback");
    INFO(end.output);
    CHECK(end.signal == SIGABRT);
    CHECK(end.says("would suspend in sleep inside a no_suspend scope"));
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

TEST_CASE("a key that is encrypted is refused, and nobody is asked for the password") {
    certificate_files const files = certificates::get().encrypt_key();
    std::string const why = reason_of([&] { server_with(files); });
    expect_part(why, files.key + "', which is encrypted: ");
    CHECK(why.find("no reason given") == why.npos);
}

TEST_CASE("files that are not there, and what they contain") {
    auto const& files = certificates::get();
    auto const why = [](auto make) { return reason_of(make); };
    expect_part(why([&] { tls_context::server("nowhere.pem", files.server.key); }),
                "'nowhere.pem'");
    expect_part(why([&] { tls_context::server(files.server.chain, "nowhere.key"); }),
                "'nowhere.key'");
    expect_part(why([&] { tls_context::server(files.server.chain, files.client.key); }),
                "mismatch");
    expect_part(why([&] { tls_context::client({.ca_file = "nowhere.pem"}); }), "'nowhere.pem'");
    CHECK_THROWS_AS(weft::tls_protocol_version("SSLv2"), std::invalid_argument);
}
