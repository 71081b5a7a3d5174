#include <weft/streams/tls_stream.hpp>

#include "support/mistakes.hpp"
#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/sync/semaphore.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <string>

// What the library itself says to a peer, because that has asked: who sends it, and how much of it.

TEST_SUITE_BEGIN("streams.tls_answers");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::memory_network;
using weft::memory_network_stream;
using weft::tls_stream;

constexpr std::size_t refusal = 31; // octets: the alert no_renegotiation, under AES-GCM

SSL* native(tls_stream const& stream) { return stream.extra(weft::tls_attribute::ssl_object); }

tls_pair_options before_1_3() {
    tls_pair_options options{.client = only(trusting_client(), TLS1_2_VERSION)};
    ::SSL_CTX_set_cipher_list(options.client->native(), "ECDHE+AESGCM");
    return options;
}

tls_pair shake_hands_before_1_3(weft::any_byte_stream client, weft::any_byte_stream server) {
    tls_pair pair = shake_hands(std::move(client), std::move(server), before_1_3());
    ::SSL_clear_options(native(pair.server), SSL_OP_NO_RENEGOTIATION); // it will ask all the same
    return pair;
}

// Each is refused with an alert. They go out with the next send().
void ask_to_renegotiate(tls_stream const& server, int times) {
    for (int time = 0; time < times; ++time)
        check(::SSL_renegotiate(native(server)) == 1 && ::SSL_do_handshake(native(server)) == 1,
              "asked");
}

void ask_for_new_keys(tls_stream const& stream, int times) {
    for (int time = 0; time < times; ++time)
        check(::SSL_key_update(native(stream), SSL_KEY_UPDATE_REQUESTED) == 1 &&
                  ::SSL_do_handshake(native(stream)) == 1,
              "asked");
}

std::size_t count_until_end(memory_network_stream& from) {
    std::size_t count = 0;
    for (weft::bytes const& chunk : from)
        count += chunk.size();
    return count;
}

} // namespace

namespace {

void check_flood(memory_network_stream& raw, tls_stream& victim, tls_stream& attacker,
                 void (*ask)(tls_stream const&, int)) {
    std::string const much(100'000, 'x');
    std::string why;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            check_throws<weft::broken_resource_error>([&] { victim.send(much); }, "cut off");
        });
        weft::wait_all_tasks_blocked();
        group.start_soon([&] {
            try {
                for (;;)
                    victim.receive();
            } catch (weft::broken_resource_error const& failure) {
                why = failure.what();
            }
            raw.reset();
        });
        try {
            for (int time = 0; time < 400; ++time) {
                ask(attacker, 100);
                attacker.send("y");
            }
        } catch (weft::broken_resource_error const&) { // cut off
        }
        raw.reset();
    });
    check(why.find("does not receive the answers") != why.npos, "it says why: " + why);
}

} // namespace

TEST_CASE("TL12: a peer that asks without end and does not listen is cut off") {
    run_test({.workers = {1, 2}, .seeds = {0}}, [] {
        memory_network network({.capacity = 1000});
        auto ends = network.make_pair();
        tls_pair pair = shake_hands_before_1_3(ends.first, ends.second);
        check_flood(ends.first, pair.client, pair.server, ask_to_renegotiate);
    });
    run_test({.workers = {1, 2}, .seeds = {0}}, [] {
        memory_network network({.capacity = 1000});
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        check_flood(ends.first, pair.client, pair.server, ask_for_new_keys);
    });
    run_test({.workers = {1, 2}, .seeds = {0}}, [] {
        memory_network network({.capacity = 1000});
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        check_flood(ends.first, pair.server, pair.client, ask_for_new_keys);
    });
}

TEST_CASE("TL12: a peer that asks often, and listens late, gets all answers") {
    run_test([] {
        memory_network network({.capacity = 1000});
        auto ends = network.make_pair();
        tls_pair pair = shake_hands_before_1_3(ends.first, ends.second);
        std::string const much(100'000, 'x');
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                pair.client.send(much);
                ends.first.send_eof();
            });
            weft::wait_all_tasks_blocked();
            for (int time = 0; time < 20; ++time) {
                group.start_soon([&] { check(pair.client.receive() == "y", "that, too"); });
                ask_to_renegotiate(pair.server, 100);
                pair.server.send("y");
                weft::wait_all_tasks_blocked();
            }
            std::size_t const records = 1 + much.size() / 16384;
            check(count_until_end(ends.second) == much.size() + records * 29 + 2000 * refusal,
                  "all that was sent, and an answer each");
        });
    });
}

TEST_CASE("TL12: a server that only receives answers any number of updates of keys") {
    run_test({.workers = {2}, .seeds = {0}}, [] {
        memory_network network({.capacity = 1'000'000});
        tls_pair pair = shake_hands(network);
        for (int time = 0; time < 120; ++time) {
            ask_for_new_keys(pair.client, 100);
            pair.client.send("x");
            check(pair.server.receive() == "x", "it works");
        }
        pair.server.send("y");
        check(pair.client.receive() == "y", "with the newest keys");
        close_both(pair);
    });
}

TEST_CASE("TL12, TL13: two peers that flood each other with data and requests get through") {
    run_test({.workers = {1, 2, 4}, .seeds = {0, 1, 2, 3}}, [] {
        memory_network network({.capacity = 500});
        tls_pair pair = shake_hands(network);
        weft::semaphore through(0);
        auto const flood = [&through](tls_stream& stream, weft::task_group& group) {
            group.start_soon([&] {
                for (int time = 0; time < 60; ++time) {
                    stream.update_keys();
                    stream.send(std::string(1000, 'x'));
                }
                through.release();
            });
            group.start_soon([&] {
                for (std::size_t count = 0;;) { // to the end: there may be answers
                    count += stream.receive(60'000 - count % 60'000).size();
                    if (count == 60'000) through.release();
                }
            });
        };
        weft::with_task_group([&](weft::task_group& group) {
            flood(pair.client, group);
            flood(pair.server, group);
            for (int direction = 0; direction < 4; ++direction)
                through.acquire();
            group.cancel();
        });
    });
}

namespace {

// Does something of the test's when octets have arrived, and before any are sent.
class watched_stream final : public weft::byte_stream {
public:
    explicit watched_stream(memory_network_stream& on) : on_(on) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override {
        std::size_t const count = on_.receive_some(target);
        if (received) received();
        return count;
    }
    void send(weft::bytes_view data) override {
        if (sends) sends();
        on_.send(data);
    }
    void send_eof() override { on_.send_eof(); }
    void close() override { on_.close(); }

    std::function<void()> received;
    std::function<void()> sends;

private:
    memory_network_stream& on_;
};

} // namespace

TEST_CASE("M2: what was received is not lost to a cancellation that meets the answer") {
    run_test([] {
        for (bool const is_under_way : {false, true}) {
            memory_network network;
            auto ends = network.make_pair();
            watched_stream watched(ends.first);
            tls_pair pair = shake_hands_before_1_3(watched, ends.second);
            ask_to_renegotiate(pair.server, 1);
            pair.server.send("data");
            weft::cancel_scope scope;
            (is_under_way ? watched.sends : watched.received) = [&scope] { scope.cancel(); };
            std::string got;
            bool const goes_on = scope.run([&] {
                got = pair.client.receive();
                pair.client.receive();
            });
            watched.sends = watched.received = nullptr;
            check(got == "data", "received");
            check(!goes_on, "the next call is cancelled");
            if (is_under_way) {
                check_throws<weft::broken_resource_error>([&] { pair.client.receive(); }, "broken");
            } else {
                pair.server.send("more");
                check(pair.client.receive() == "more", "the stream is as it was");
            }
        }
    });
}

namespace {

// Cancels the scope when OpenSSL has put out an answer to an update of keys, which is to be sent then.
void cancel_on_key_update(int is_ours, int, int type, void const* octets, std::size_t size, SSL*,
                          void* scope) {
    bool const is_it = type == SSL3_RT_HANDSHAKE && size != 0 &&
                       *static_cast<unsigned char const*>(octets) == SSL3_MT_KEY_UPDATE;
    if (is_ours != 0 && is_it) static_cast<weft::cancel_scope*>(scope)->cancel();
}

} // namespace

TEST_CASE("TL12, M8: what was received is given, and the cancellation was not the task's to answer for") {
    mistakes_heard const heard;
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        weft::cancel_scope scope;
        auto const context = trusting_client();
        ::SSL_CTX_set_msg_callback(context.native(), cancel_on_key_update);
        ::SSL_CTX_set_msg_callback_arg(context.native(), &scope);
        tls_pair pair = shake_hands(ends.first, ends.second, {.client = context});
        std::string got;
        scope.run([&] {
            for (int round = 0; round < 3; ++round) {
                ask_for_new_keys(pair.server, 1);
                pair.server.send("x");
                got += pair.client.receive();
                if (scope.cancel_called()) return; // no cancellation point since
            }
        });
        check(scope.cancel_called() && !scope.cancelled_caught(), "cancelled while it answered");
        check(got.ends_with("x"), "nothing is lost: " + got);
        pair.server.send("y");
        check(pair.client.receive() == "y", "the stream works");
        close_both(pair);
    });
    CHECK(heard.count("swallowed") == 0);
}
