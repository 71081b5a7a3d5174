#include <weft/streams/tls_stream.hpp>

#include "tls_failures.hpp"

#include <weft/io/error.hpp>
#include <weft/streams/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

// Peers that are not who they should be, speak something else, or vanish.
TEST_SUITE_BEGIN("streams.tls_bad_peers");

namespace {

using namespace weft::test;
using weft::memory_network;
using weft::memory_network_stream;
using weft::tls_context;
using weft::tls_stream;

constexpr int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

void run_few(std::function<void()> const& body) {
    run_test({.workers = {1, 2}, .seeds = {0}}, body);
}

void expect_distrust(certificate_files const& shown, std::string const& verdict,
                     std::string const& alert, std::string const& hostname = "localhost") {
    for (int const version : versions) {
        reasons const why =
            fail_to_shake_hands(only(trusting_client(), version), server_with(shown), hostname);
        expect_part(why.client, "certificate verify failed: " + verdict);
        expect_part(why.server, alert);
    }
}

// Another one vanishes when so many octets of it have come; counts how often it is asked then.
class vanishing final : public weft::byte_stream {
public:
    enum class way { ends, resets };

    vanishing(memory_network_stream of, std::size_t after, way how)
        : of_(std::move(of)), left_(after), how_(how) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override {
        if (left_ == 0) return vanish();
        std::size_t const count = of_.receive_some(target.first(std::min(target.size(), left_)));
        left_ -= count;
        return count;
    }
    void send(weft::bytes_view data) override {
        if (left_ != 0 || how_ == way::ends) of_.send(data);
    }
    void send_eof() override { of_.send_eof(); }
    void close() override { of_.close(); }

    void let_through(std::size_t octets) { left_ = octets; }
    bool has_vanished() const { return asked_ != 0; }
    std::size_t asked() const { return asked_; }

private:
    std::size_t vanish() {
        ++asked_;
        if (how_ == way::resets)
            throw std::system_error(ECONNRESET, std::system_category(), "receiving");
        return 0;
    }

    memory_network_stream of_;
    std::size_t left_;
    way how_;
    std::size_t asked_ = 0;
};

// Puts a record that nobody has encrypted behind what it is told to send, once.
class forging final : public weft::byte_stream {
public:
    explicit forging(memory_network_stream of) : of_(std::move(of)) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override { return of_.receive_some(target); }
    void send(weft::bytes_view data) override {
        weft::bytes all = data.to_bytes();
        if (std::exchange(forges_, false))
            all += std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x');
        of_.send(all);
    }
    void send_eof() override { of_.send_eof(); }
    void close() override { of_.close(); }

    void forge() { forges_ = true; }

private:
    memory_network_stream of_;
    bool forges_ = false;
};

// How the call breaks, with the words of the cause; "" if it does not.
template <class Call> std::string how_it_breaks(Call call) {
    try {
        call();
    } catch (weft::end_of_stream const&) {
        return "end";
    } catch (weft::broken_resource_error const& failure) {
        try {
            std::rethrow_if_nested(failure);
        } catch (weft::tls_error const& cause) {
            return "broken by TLS: " + cause.reason();
        } catch (std::system_error const& cause) {
            return "broken by " + std::to_string(cause.code().value());
        }
        return std::string("broken: ") + failure.what();
    } catch (weft::tls_error const& failure) {
        return "TLS: " + failure.reason();
    }
    return "";
}

struct vanishing_act {
    int version;
    bool server_vanishes;
    vanishing::way how;
    bool standard_compatible;
};

// How the victim's handshake ends when its peer vanishes after so many octets.
std::string vanish_after(std::size_t octets, vanishing_act const& act) {
    memory_network network;
    auto ends = network.make_pair();
    vanishing transport(std::move(ends.first), octets, act.how);
    auto const wrap = [&](weft::any_byte_stream over, bool serves) {
        return tls_stream::wrap(
            std::move(over),
            {.server_side = serves,
             .hostname = serves ? "" : "localhost",
             .context = only(serves ? trusted_server() : trusting_client(), act.version),
             .standard_compatible = act.standard_compatible});
    };
    std::string end;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            how_it_breaks([&] { wrap(ends.second, act.server_vanishes).receive(); });
            ends.second.close();
        });
        end = how_it_breaks([&] { wrap(transport, !act.server_vanishes); });
        transport.close(); // TL2: that is up to the caller
    });
    check(transport.asked() <= 2, "a peer that has gone is not asked again and again");
    check(end.empty() != transport.has_vanished(), "only that ends it: " + end);
    check(::ERR_peek_error() == 0, "nothing is left in the error queue");
    return end;
}

// With every length that is too short for a handshake, in steps; gives how many there were.
unsigned vanish_everywhere(vanishing_act const& act, std::string const& expected) {
    unsigned places = 0;
    for (std::size_t octets = 0; octets < 10'000; octets += 61, ++places) {
        std::string const end = vanish_after(octets, act);
        if (end.empty()) break;
        check(end == expected, std::to_string(octets) + " octets: " + end);
    }
    return places;
}

} // namespace

TEST_CASE("TL2: a certificate that is not trusted is refused with OpenSSL's reason, and the peer "
          "is told") {
    auto const& files = certificates::get();
    run_few([&] {
        expect_distrust(files.other_host, "hostname mismatch", "alert bad certificate");
        expect_distrust(files.server, "IP address mismatch", "alert bad certificate", "127.0.0.2");
        expect_distrust(files.expired, "certificate has expired", "alert certificate expired");
        expect_distrust(files.self_signed, "self-signed certificate", "alert unknown ca");
        reasons const unknown = fail_to_shake_hands(tls_context::client(), trusted_server());
        expect_part(unknown.client,
                    "certificate verify failed: unable to get local issuer certificate");
        expect_part(unknown.server, "alert unknown ca");
    });
}

TEST_CASE("TL2: a server without any certificate") {
    run_few([] {
        for (int const version : versions) {
            auto const server = only(trusted_server(), version);
            ::SSL_CTX_set_cert_cb(
                server.native(),
                [](SSL* ssl, void*) {
                    ::SSL_certs_clear(ssl);
                    return 1;
                },
                nullptr);
            reasons const why = fail_to_shake_hands(trusting_client(), server);
            expect_part(why.server, version == TLS1_3_VERSION ? "no suitable signature algorithm"
                                                              : "no shared cipher");
            expect_part(why.client, "alert handshake failure");
        }
    });
}

TEST_CASE("TL2: client certificates: required and missing, of the wrong issuer, and right") {
    auto const& files = certificates::get();
    weft::tls_server_options const strict{.client_ca_file = files.authority.chain,
                                          .require_client_certificate = true};
    auto const client_with = [&](certificate_files const& own) {
        return trusting_client({.cert_chain_file = own.chain, .key_file = own.key});
    };
    run_few([&] {
        for (int const version : versions) {
            auto const server = only(trusted_server(strict), version);
            reasons const missing = fail_to_shake_hands(trusting_client(), server);
            expect_part(missing.server, "peer did not return a certificate");
            expect_part(missing.client, version == TLS1_3_VERSION ? "alert certificate required"
                                                                  : "alert handshake failure");
            reasons const wrong = fail_to_shake_hands(client_with(files.untrusted_client), server);
            expect_part(wrong.server,
                        "certificate verify failed: unable to get local issuer certificate");
            expect_part(wrong.client, "alert unknown ca");
            tls_pair pair = shake_hands({.client = client_with(files.client), .server = server});
            pair.client.send("x"); // in TLS 1.3 the server knows only now
            check(pair.server.receive() == "x", "welcome");
            auto const shown = pair.server.extra(weft::tls_attribute::peer_certificate);
            check(shown && shown->subject == "CN=client", "who it is");
            close_both(pair);
        }
        auto const lenient = trusted_server({.client_ca_file = files.authority.chain});
        tls_pair pair = shake_hands({.server = lenient});
        check(!pair.server.extra(weft::tls_attribute::peer_certificate), "asked, but not shown");
        close_both(pair);
    });
}

TEST_CASE("TL2: versions that do not meet, on either side") {
    run_few([] {
        reasons const modern_server =
            fail_to_shake_hands(only(trusting_client(), TLS1_2_VERSION),
                                trusted_server({.minimum_version = weft::tls_1_3}));
        expect_part(modern_server.server, "unsupported protocol");
        expect_part(modern_server.client, "alert protocol version");
        reasons const modern_client =
            fail_to_shake_hands(trusting_client({.minimum_version = "TLSv1.3"}),
                                only(trusted_server(), TLS1_2_VERSION));
        expect_part(modern_client.server, "unsupported protocol");
        expect_part(modern_client.client, "alert protocol version");
    });
}

TEST_CASE("TL2: what is no TLS, on either side") {
    struct sample {
        std::string text;
        std::string reason;
    };
    std::vector<sample> const to_server{
        {"GET / HTTP/1.0\r\n\r\n", "http request"},
        {"CONNECT weft:443 HTTP/1.1\r\n\r\n", "https proxy request"},
        {"SSH-2.0-OpenSSH_9.6\r\n", "wrong version number"},
        {std::string(100, '\0'), "wrong version number"}};
    std::vector<sample> const to_client{
        {"220 mail.example ready\r\n", "wrong version number"},
        {"HTTP/1.1 400 Bad Request\r\n\r\n", "wrong version number"}};
    run_few([&] {
        memory_network network;
        for (sample const& each : to_server) {
            auto ends = network.make_pair();
            ends.first.send(each.text);
            std::string const why =
                reason_of([&] { tls_stream::wrap(ends.second, {.context = trusted_server()}); });
            expect_part(why, each.reason);
        }
        for (sample const& each : to_client) {
            auto ends = network.make_pair();
            ends.second.send(each.text);
            std::string const why = reason_of([&] {
                tls_stream::wrap(ends.first,
                                 {.hostname = "localhost", .context = trusting_client()});
            });
            expect_part(why, each.reason);
        }
    });
}

TEST_CASE("TL19: a peer that vanishes in the middle of the handshake, wherever it does") {
    auto const expect = [](vanishing_act const& act, std::string const& how) {
        run_test({.workers = {1}, .seeds = {0}}, [&] { // each a run of its own: that has its time
            check(vanish_everywhere(act, how) >= 5, "in the middle of each flight");
        });
    };
    using way = vanishing::way;
    for (int const version : versions)
        for (bool const server_vanishes : {false, true}) {
            expect({version, server_vanishes, way::ends, true},
                   "broken by TLS: unexpected eof while reading");
            expect({version, server_vanishes, way::ends, false}, "end");
            expect({version, server_vanishes, way::resets, true},
                   "broken by " + std::to_string(ECONNRESET));
        }
}

TEST_CASE("TL5: what is wrong behind good octets fails the next call, with OpenSSL's reason, and the peer hears") {
    enum class way { receive, send, unwrap, close };
    auto const reason = [](int version, bool serves, way how) {
        memory_network network;
        auto ends = network.make_pair();
        forging from_client(std::move(ends.first));
        forging from_server(std::move(ends.second));
        tls_pair pair = shake_hands(from_client, from_server, {.client = only(trusting_client(), version)});
        tls_stream& here = serves ? pair.server : pair.client;
        tls_stream& peer = serves ? pair.client : pair.server;
        (serves ? from_client : from_server).forge();
        peer.send("good");
        check(here.receive() == "good", "what came before");
        std::string const why = reason_of([&] {
            if (how == way::receive) here.receive();
            if (how == way::send) here.send("x");
            if (how == way::unwrap) here.unwrap();
            if (how == way::close) here.close();
        });
        if (how != way::close)
            check(how_it_breaks([&] { here.receive(); }) == "broken by TLS: " + why, "it stays the reason");
        expect_part(reason_of([&] { peer.receive(); }), "alert bad record mac");
        from_client.close();
        from_server.close();
        return why;
    };
    run_few([&] {
        for (int const version : versions)
            for (bool const serves : {false, true}) {
                std::string const expected = reason(version, serves, way::receive);
                for (way const how : {way::send, way::unwrap, way::close}) {
                    std::string const given = reason(version, serves, how);
                    check(given == expected, "'" + given + "' for '" + expected + "'");
                }
            }
    });
}

TEST_CASE("TL5: of a record that is cut off nothing is received") {
    run_few([] {
        for (bool const standard : {true, false})
            for (std::size_t const part : {1, 5, 6, 5000, 10'000}) {
                memory_network network;
                auto ends = network.make_pair();
                vanishing transport(std::move(ends.first), 1'000'000, vanishing::way::ends);
                tls_pair pair =
                    shake_hands(transport, ends.second, {.standard_compatible = standard});
                pair.server.send("x"); // and the tickets
                check(pair.client.receive() == "x", "what is whole");
                pair.server.send(std::string(10'000, 'x'));
                transport.let_through(part);
                for (int time = 0; time < 2; ++time) {
                    std::string const end = how_it_breaks([&] { pair.client.receive(); });
                    check(end == (standard ? "broken by TLS: unexpected eof while reading" : "end"),
                          std::to_string(part) + " octets: " + end);
                }
                check(transport.asked() <= 2, "it is not asked again and again");
                transport.close();
                ends.second.close();
            }
    });
}
