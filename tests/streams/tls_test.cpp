#include <weft/streams/tls_stream.hpp>

#include "direction_guard.hpp"
#include "sockets.hpp"
#include "support/child_process.hpp"
#include "tls_pair.hpp"

#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/streams/conformance.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/stapled.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

TEST_SUITE_BEGIN("streams.tls");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::memory_network;
using weft::tls_stream;

std::string receive_exactly(weft::byte_receive_stream& from, std::size_t size) {
    std::string all;
    while (all.size() < size)
        all += from.receive(size - all.size());
    return all;
}

// That the network resets the client's connection breaks it.
weft::byte_stream_ends ends_in(memory_network& network, tls_pair_options options) {
    auto [here, there] = network.make_pair();
    auto transport = std::make_unique<weft::memory_network_stream>(std::move(here));
    auto const reset = [&broken = *transport] { broken.reset(); };
    tls_pair pair = shake_hands(std::move(transport), std::move(there), std::move(options));
    return {std::move(pair.client), std::move(pair.server), reset};
}

std::string pattern(std::size_t size) {
    std::string data(size, '\0');
    for (std::size_t at = 0; at < size; ++at)
        data[at] = char(at * 7 + (at >> 10));
    return data;
}

void greet(tls_pair_options const& contexts, char const* when) {
    weft::run({.workers = 1}, [&] {
        tls_pair pair = shake_hands(contexts);
        pair.server.send("hello");
        std::printf("%s: %s\n", when, pair.client.receive().c_str());
        close_both(pair);
    });
    std::fflush(stdout);
}

// It is there before OpenSSL, and goes after it.
struct uses_tls_after_openssl {
    bool wanted = false; // and no context: one that is freed then leaks what it holds
    ~uses_tls_after_openssl() {
        if (!wanted) return;
        try {
            weft::run({.workers = 1}, [] { weft::tls_context::client(); });
        } catch (weft::tls_error const&) {
            std::puts("after OpenSSL: an error");
            std::fflush(stdout);
        }
    }
} after_openssl;

struct uses_tls_at_the_end {
    tls_pair_options contexts;
    ~uses_tls_at_the_end() { greet(contexts, "at the end"); }
};

child_program const tls_at_the_end("TLS in a static destructor", [] {
    tls_pair_options contexts{.client = trusting_client(), .server = trusted_server()};
    after_openssl.wanted = true;
    static uses_tls_at_the_end const at_the_end{contexts}; // and then what streams need
    greet(contexts, "before");
});

} // namespace

TEST_CASE("E1: a static object's destructor may use TLS as long as OpenSSL is there") {
    child_end const end = run_child("TLS in a static destructor");
    CHECK(end.exit_code == 0);
    CHECK(end.says("at the end: hello"));
    CHECK(end.says("after OpenSSL: an error"));
}

TEST_CASE("X1-X6, R2-R4, TL3, TL6, TL8: TLS streams conform, in each version") {
    for (int const version : {TLS1_2_VERSION, TLS1_3_VERSION})
        run_test({.workers = {1, 2}, .seeds = {0, 1}}, [version] {
            memory_network network;
            auto const client = only(trusting_client(), version);
            auto const server = only(trusted_server(), version);
            weft::check_byte_stream(
                [&] {
                    return ends_in(network, {.client = client, .server = server});
                },
                {.half_close = false});
        });
}

TEST_CASE("X1-X6, R2-R4, TL5: TLS streams that do not insist on a good-bye conform") {
    run_test({.workers = {2}, .seeds = {0}}, [] {
        memory_network network({.largest_piece = 30'000});
        auto const client = trusting_client();
        auto const server = trusted_server();
        weft::check_byte_stream(
            [&] {
                return ends_in(network,
                               {.client = client, .server = server, .standard_compatible = false});
            },
            {.half_close = false});
    });
}

TEST_CASE("TL2: TLS over an object stream of octets, over TLS, over sockets") {
    run_with_sockets([] {
        connection pair = connect_pair();
        tls_pair outer = shake_hands(std::move(pair.here), std::move(pair.there));
        tls_pair inner = shake_hands(std::move(outer.client), std::move(outer.server));
        inner.client.send("hidden twice");
        check(inner.server.receive() == "hidden twice", "it arrives");
        close_both(inner);

        auto there = weft::create_memory_object_stream<weft::bytes>(0);
        auto back = weft::create_memory_object_stream<weft::bytes>(0);
        weft::stapled_byte_stream one(std::move(there.send), std::move(back.receive));
        weft::stapled_byte_stream other(std::move(back.send), std::move(there.receive));
        tls_pair objects = shake_hands(one, other, {.standard_compatible = false});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { objects.client.send("object"); });
            check(objects.server.receive() == "object", "it arrives");
        });
    });
}

TEST_CASE("TL1: who serves is told by whether there is a host name") {
    run_test({.workers = {1}, .seeds = {0}}, [] {
        memory_network network;
        auto pair = network.make_pair();
        check_throws<std::invalid_argument>([&] { tls_stream::wrap(pair.first, {}); },
                                            "a server without a certificate");
        check_throws<std::invalid_argument>(
            [&] { tls_stream::wrap(pair.first, {.server_side = false}); }, "whom to verify?");
        check_throws<std::invalid_argument>(
            [&] { tls_stream::wrap(pair.first, {.hostname = "\xff.example"}); }, "no host name");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                auto server = tls_stream::wrap(pair.second, {.context = trusted_server()});
                check(server.extra(weft::tls_attribute::server_side), "this one serves");
            });
            auto client = tls_stream::wrap(pair.first,
                                           {.hostname = "localhost", .context = trusting_client()});
            check(!client.extra(weft::tls_attribute::server_side), "this one does not");
        });
    });
}

TEST_CASE("TL7: much in both directions at once, over sockets and slow networks") {
    std::string const data = pattern(3'000'000);
    auto const exchange = [&data](tls_pair& pair) {
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.client.send(data); });
            group.start_soon([&] { pair.server.send(data); });
            group.start_soon(
                [&] { check(receive_exactly(pair.client, data.size()) == data, "to the client"); });
            check(receive_exactly(pair.server, data.size()) == data, "to the server");
        });
        close_both(pair);
    };
    run_with_sockets([&] {
        connection sockets = connect_pair();
        tls_pair pair = shake_hands(std::move(sockets.here), std::move(sockets.there));
        exchange(pair);
    });
    run_test({.workers = {2}, .seeds = {0, 1}}, [&] {
        memory_network network({.most_delay = 1ms, .largest_piece = 20'000});
        tls_pair pair = shake_hands(network);
        exchange(pair);
    });
}

TEST_CASE("X3: gathered parts, large and small") {
    run_test({.workers = {1}, .seeds = {0}}, [] {
        tls_pair pair = shake_hands();
        std::string const large = pattern(40'000);
        std::string const medium = pattern(9000);
        weft::bytes_view const parts[] = {"a", "", large, "b", medium, "c"};
        std::string const all = "a" + large + "b" + medium + "c";
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.client.send(parts); });
            check(receive_exactly(pair.server, all.size()) == all, "in order");
        });
        close_both(pair);
    });
}

TEST_CASE("TL12, TL13: keys are updated at any moment, while both sides send and receive") {
    run_test({.workers = {1, 2, 4}, .seeds = {0, 1}, .times = 3}, [] {
        std::string const data = pattern(400'000);
        memory_network network({.largest_piece = 5000});
        tls_pair pair = shake_hands(network);
        auto const talk = [&](tls_stream& stream, weft::task_group& group) {
            group.start_soon([&] {
                for (std::size_t at = 0; at < data.size(); at += 10'000) {
                    if (at % 40'000 == 0) stream.update_keys();
                    stream.send(weft::bytes_view(data).subview(at, 10'000));
                }
            });
            group.start_soon([&] {
                for (int time = 0; time < 10; ++time) {
                    stream.update_keys();
                    weft::lowlevel::checkpoint();
                }
            });
            group.start_soon(
                [&] { check(receive_exactly(stream, data.size()) == data, "every octet"); });
        };
        weft::with_task_group([&](weft::task_group& group) {
            talk(pair.client, group);
            talk(pair.server, group);
        });
        // What was asked for is answered now: close() has nobody left to answer to.
        pair.client.send("done");
        check(pair.server.receive() == "done", "the server has seen all requests");
        pair.server.send("done");
        check(pair.client.receive() == "done", "and the client");
        close_both(pair);
    });
}

TEST_CASE("TL12: session tickets come at any moment") {
    run_test({.workers = {2}, .seeds = {0}}, [] {
        tls_pair pair = shake_hands();
        for (int time = 0; time < 5; ++time) {
            SSL* const server = pair.server.extra(weft::tls_attribute::ssl_object);
            check(::SSL_new_session_ticket(server) == 1, "asked for");
            pair.server.send("x");
            check(pair.client.receive() == "x", "a ticket is not data");
        }
        close_both(pair);
    });
}

TEST_CASE("TL12: a client that only receives answers when it is asked for its certificate") {
    run_test([] {
        auto const& files = certificates::get();
        auto const client =
            trusting_client({.cert_chain_file = files.client.chain, .key_file = files.client.key});
        ::SSL_CTX_set_post_handshake_auth(client.native(), 1);
        auto const server = trusted_server();
        tls_pair pair = shake_hands({.client = client, .server = server});
        SSL* const ssl = pair.server.extra(weft::tls_attribute::ssl_object);
        check(::SSL_CTX_load_verify_locations(::SSL_get_SSL_CTX(ssl), files.authority.chain.c_str(),
                                              nullptr) == 1,
              "the authority");
        ::SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
        check(::SSL_verify_client_post_handshake(ssl) == 1, "asked");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(pair.client.receive(1) == "x", "it receives"); });
            pair.server.send("x");
        });
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(pair.server.receive() == "y", "after the certificate"); });
            pair.client.send("y");
        });
        auto const shown = pair.server.extra(weft::tls_attribute::peer_certificate);
        check(shown && shown->subject == "CN=client", "it was shown");
        close_both(pair);
    });
}

TEST_CASE("TL12: before TLS 1.3 keys are not updated") {
    run_test({.workers = {1}, .seeds = {0}}, [] {
        tls_pair pair = shake_hands({.client = only(trusting_client(), TLS1_2_VERSION)});
        check_throws<std::logic_error>([&] { pair.client.update_keys(); },
                                       "there is no such thing");
        close_both(pair);
    });
}

TEST_CASE("TL8: send_eof() says whether the version is to blame, or we are") {
    run_test({.workers = {1}, .seeds = {0}}, [] {
        for (int const version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
            tls_pair pair = shake_hands({.client = only(trusting_client(), version)});
            std::string why;
            try {
                pair.client.send_eof();
            } catch (std::logic_error const& failure) {
                why = failure.what();
            }
            bool const blames_version = why.find("before TLS 1.3") != why.npos;
            bool const blames_us = why.find("not been implemented") != why.npos;
            check(blames_version == (version == TLS1_2_VERSION) && blames_us != blames_version, why);
            pair.client.send("more");
            check(pair.server.receive() == "more", "nothing has ended");
            close_both(pair);
        }
    });
}

namespace {

// Fails as a socket does, when it is told to.
class failing_stream final : public weft::byte_stream {
public:
    explicit failing_stream(weft::byte_stream& on) : on_(on) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override {
        if (cannot_receive) throw std::system_error(ECONNRESET, std::system_category(), "recv");
        return on_.receive_some(target);
    }
    void send(weft::bytes_view data) override {
        if (cannot_send) throw std::system_error(EPIPE, std::system_category(), "sendmsg");
        on_.send(data);
    }
    void send_eof() override { on_.send_eof(); }
    void close() override { on_.close(); }

    bool cannot_receive = false;
    bool cannot_send = false;

private:
    weft::byte_stream& on_;
};

// The call finds the stream broken, and by what.
template <class Call> void check_broken_by(int error, Call&& call, char const* what) {
    int found = 0;
    try {
        call();
    } catch (weft::broken_resource_error const& failure) {
        try {
            std::rethrow_if_nested(failure);
        } catch (std::system_error const& cause) {
            found = cause.code().value();
        }
    }
    check(found == error, std::string(what) + ": " + std::to_string(found));
}

} // namespace

TEST_CASE("TL4: an error of the system underneath breaks the stream, with the cause") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        failing_stream transport(ends.first);
        tls_pair pair = shake_hands(transport, ends.second);
        transport.cannot_send = true;
        for (int time = 0; time < 2; ++time)
            check_broken_by(EPIPE, [&] { pair.client.send("x"); }, "sending");
        pair.server.send("still");
        check(pair.client.receive() == "still", "what the peer says is received all the same");
        transport.cannot_receive = true;
        for (int time = 0; time < 2; ++time) {
            check_broken_by(ECONNRESET, [&] { pair.client.receive(); }, "receiving");
            check_broken_by(ECONNRESET, [&] { pair.client.send("x"); }, "sending, then");
        }
    });
}

TEST_CASE("TL4: an error of the system underneath ends the handshake, with the cause") {
    run_test([] {
        for (int const error : {EPIPE, ECONNRESET}) {
            memory_network network;
            auto ends = network.make_pair();
            failing_stream transport(ends.first);
            (error == EPIPE ? transport.cannot_send : transport.cannot_receive) = true;
            check_broken_by(
                error,
                [&] { tls_stream::wrap(transport, {.hostname = "localhost", .context = trusting_client()}); },
                "the handshake");
        }
    });
}

TEST_CASE("TL4: where the stream underneath is broken or closed, its own words say it") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        ends.second.reset();
        for (int time = 0; time < 2; ++time) {
            check_throws<weft::broken_resource_error>([&] { pair.client.receive(); }, "receiving");
            check_throws<weft::broken_resource_error>([&] { pair.client.send("x"); }, "sending");
        }
        auto others = network.make_pair();
        tls_pair closed = shake_hands(others.first, others.second);
        others.first.close();
        for (int time = 0; time < 2; ++time) {
            check_throws<weft::closed_resource_error>([&] { closed.client.send("x"); }, "sending");
            check_throws<weft::closed_resource_error>([&] { closed.client.receive(); }, "receiving");
        }
    });
}

TEST_CASE("X8: one task a direction, told before anything else, whichever way a call ends") {
    run_test([] {
        tls_pair pair = shake_hands();
        check_direction_guard(pair.client, pair.server);
    });
}

TEST_CASE("X6: one task a direction, and both at once") {
    run_test([] {
        tls_pair pair = shake_hands();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(pair.client.receive() == "x", "the first"); });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { pair.client.receive(); }, "the second");
            check_throws<weft::busy_resource_error>([&] { pair.client.unwrap(); }, "unwrap()");
            pair.client.send("while another receives");
            check(pair.server.receive() == "while another receives", "it arrives");
            pair.server.send("x");
        });
        close_both(pair);
    });
}

TEST_CASE("TL13: receiving goes on while sending waits for a peer that does not receive") {
    run_test([] {
        memory_network network({.capacity = 1000});
        tls_pair pair = shake_hands(network);
        std::string const much(200'000, 'x');
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.client.send(much); });
            weft::wait_all_tasks_blocked();
            for (int time = 0; time < 10; ++time) {
                pair.server.send("y");
                check(pair.client.receive() == "y", "it arrives");
            }
            check(receive_exactly(pair.server, much.size()) == much, "and now the rest");
        });
        close_both(pair);
    });
}
