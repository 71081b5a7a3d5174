#include <weft/streams/tls_stream.hpp>

#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>

#include <doctest/doctest.h>

#include <string>

TEST_SUITE_BEGIN("streams.tls_cancel");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::memory_network;
using weft::tls_stream;

// TL11: what is broken says so when it is closed.
void drop(tls_stream& stream) {
    try {
        weft::close_forcefully(stream);
    } catch (weft::broken_resource_error const&) {
    }
}

// Cancels the scope when OpenSSL has put out an alert, which has not been sent then.
void cancel_on_alert(int is_ours, int, int type, void const*, std::size_t, SSL*, void* scope) {
    if (is_ours != 0 && type == SSL3_RT_ALERT) static_cast<weft::cancel_scope*>(scope)->cancel();
}

// The same for anything.
void cancel_on_record(int is_ours, int, int type, void const*, std::size_t, SSL*, void* scope) {
    if (is_ours != 0 && type == SSL3_RT_HEADER) static_cast<weft::cancel_scope*>(scope)->cancel();
}

} // namespace

TEST_CASE("TL17: a handshake that is cancelled leaves nothing behind") {
    unsigned const points = cancel_at_every_suspension_point([](attempt& at) {
        memory_network network({.most_delay = 1ms, .largest_piece = 1000});
        auto ends = network.make_pair();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                try {
                    auto server =
                        tls_stream::wrap(std::move(ends.second), {.context = trusted_server()});
                    server.send("welcome");
                    server.receive();
                } catch (weft::error const&) { // the client went away
                }
            });
            bool const done = at.run([&] {
                auto client = tls_stream::wrap(
                    std::move(ends.first), {.hostname = "localhost", .context = trusting_client()});
                check(client.receive() == "welcome", "shaken");
            });
            check(done != at.cancelled(), "it was cancelled or it was done");
        });
    });
    CHECK(points >= 4);
}

TEST_CASE("TL13: a receive that is cancelled took nothing") {
    unsigned const points = cancel_at_every_suspension_point([](attempt& at) {
        memory_network network({.most_delay = 1ms, .largest_piece = 7});
        tls_pair pair = shake_hands(network);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                pair.server.send("0123456789");
                pair.server.send("abcdefghij");
            });
            std::string got;
            at.run([&] {
                while (got.size() < 20)
                    got += pair.client.receive(3);
            });
            while (got.size() < 20)
                got += pair.client.receive();
            check(got == "0123456789abcdefghij", "nothing is lost: " + got);
        });
        close_both(pair);
    });
    CHECK(points >= 5);
}

TEST_CASE(
    "a send that is cancelled in the middle of a record breaks the stream, else it does not") {
    unsigned broken = 0;
    unsigned const points = cancel_at_every_suspension_point([&broken](attempt& at) {
        memory_network network({.capacity = 20'000});
        tls_pair pair = shake_hands(network);
        std::string const data(100'000, 'x');
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                try {
                    for (;;)
                        pair.server.receive();
                } catch (weft::end_of_stream const&) {
                } catch (weft::broken_resource_error const&) { // the end of what was cut off
                }
                drop(pair.server);
            });
            bool const done = at.run([&] { pair.client.send(data); });
            std::string why;
            try {
                pair.client.send("more");
            } catch (weft::broken_resource_error const& failure) {
                why = failure.what();
            }
            if (!why.empty()) {
                ++broken;
                check(!done, "only if it was cut short");
                check(why.find("cancelled in the middle of a TLS record") != why.npos, why);
                check_throws<weft::broken_resource_error>([&] { pair.client.receive(); },
                                                          "neither");
            }
            drop(pair.client);
        });
    });
    CHECK(points >= 3);
    CHECK(broken >= 1);
}

TEST_CASE("TL12, M2: sends that are cancelled when they have encrypted are not taken for answers to a flood") {
    run_test({.workers = {1}, .seeds = {0}}, [] {
        tls_pair pair = shake_hands();
        SSL* const ssl = pair.client.extra(weft::tls_attribute::ssl_object);
        std::size_t const size = 65536; // what is encrypted at once
        std::size_t const many = 10;
        std::size_t received = 0;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                while (received < (many + 1) * size)
                    received += pair.server.receive().size();
            });
            for (std::size_t time = 0; time < many; ++time) {
                weft::cancel_scope scope;
                ::SSL_set_msg_callback(ssl, cancel_on_record);
                ::SSL_set_msg_callback_arg(ssl, &scope);
                check(!scope.run([&] { pair.client.send(weft::bytes(size, 'x')); }), "cancelled");
                ::SSL_set_msg_callback(ssl, nullptr);
            }
            pair.client.send(weft::bytes(size, 'x'));
        });
        check(received == (many + 1) * size, "all of it has gone out");
        close_both(pair);
    });
}

TEST_CASE("TL13: a send that is cancelled while the receiver's answer goes out has done nothing") {
    run_test([] {
        memory_network network({.capacity = 25}); // room for a good-bye, not for an answer
        tls_pair pair = shake_hands(network);
        bool has_answered = false;
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (char const* const word : {"x", "y"}) {
                    pair.server.update_keys();
                    pair.server.send(word);
                }
            });
            group.start_soon([&] {
                check(pair.client.receive() == "x", "the first");
                check(pair.client.receive() == "y", "the second"); // and OpenSSL answers the first
                has_answered = true;
            });
            weft::wait_all_tasks_blocked();
            group.start_soon([&] { scope.run([&] { pair.client.send("never"); }); });
            weft::wait_all_tasks_blocked();
            check(!has_answered, "it is about to");
            scope.cancel();
            weft::wait_all_tasks_blocked();
            check(scope.cancelled_caught(), "it waited for its turn");
            group.start_soon([&] { pair.client.send("more"); });
            check(pair.server.receive() == "more", "nothing else came before");
        });
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.server.send("too"); });
            check(pair.client.receive() == "too", "it still works");
        });
        close_both(pair);
    });
}

TEST_CASE("R2, TL10: close() cancelled at every point has closed") {
    unsigned const points = cancel_at_every_suspension_point([](attempt& at) {
        memory_network network({.most_delay = 1ms});
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                try {
                    pair.server.close();
                } catch (weft::broken_resource_error const&) { // the client did not say good-bye
                }
            });
            at.run([&] { pair.client.close(); });
            check_throws<weft::closed_resource_error>([&] { ends.first.receive(); },
                                                      "it is closed");
            check_throws<weft::closed_resource_error>([&] { pair.client.receive(); },
                                                      "and says so");
        });
    });
    CHECK(points >= 1);
}

TEST_CASE("TL9: an unwrap() that is cancelled can be called again") {
    cancel_at_every_suspension_point([](attempt& at) {
        memory_network network({.most_delay = 1ms});
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.server.unwrap(); });
            bool const done = at.run([&] { pair.client.unwrap(); });
            if (!done) pair.client.unwrap();
        });
        ends.first.send("plain");
        check(ends.second.receive() == "plain", "both are out of TLS");
    });
}

TEST_CASE("TL9: an unwrap() that is cancelled before its good-bye is sent leaves it to the next") {
    for (int const version : {TLS1_2_VERSION, TLS1_3_VERSION})
        run_test([version] {
            memory_network network;
            auto ends = network.make_pair();
            weft::cancel_scope scope;
            auto const context = only(trusting_client(), version);
            ::SSL_CTX_set_msg_callback(context.native(), cancel_on_alert);
            ::SSL_CTX_set_msg_callback_arg(context.native(), &scope);
            tls_pair pair = shake_hands(ends.first, ends.second, {.client = context});
            scope.run([&] {
                pair.client.unwrap();
                check(false, "it was cancelled");
            });
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { pair.server.unwrap(); });
                check_throws<weft::broken_resource_error>([&] { pair.client.send("x"); }, "over");
                pair.client.unwrap();
            });
            ends.first.send("plain");
            check(ends.second.receive() == "plain", "both are out of TLS");
        });
}

TEST_CASE("TL9: after an unwrap() that was cancelled sending is over, the rest goes on") {
    for (int const version : {TLS1_2_VERSION, TLS1_3_VERSION})
        run_test([version] {
            memory_network network;
            auto ends = network.make_pair();
            tls_pair pair =
                shake_hands(ends.first, ends.second, {.client = only(trusting_client(), version)});
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { scope.run([&] { pair.client.unwrap(); }); });
                weft::wait_all_tasks_blocked();
                scope.cancel();
            });
            std::string const much(100'000, 'x');
            weft::bytes_view const parts[] = {"a", much};
            for (int time = 0; time < 2; ++time) {
                check_throws<weft::broken_resource_error>([&] { pair.client.send("x"); }, "over");
                check_throws<weft::broken_resource_error>([&] { pair.client.send(parts); }, "over");
            }
            check_throws<weft::end_of_stream>([&] { pair.server.receive(); }, "the good-bye");
            pair.server.send("still");
            check(pair.client.receive() == "still", "receiving goes on");
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { pair.server.unwrap(); });
                pair.client.unwrap();
            });
            ends.first.send("plain");
            check(ends.second.receive() == "plain", "both are out of TLS");
        });
}
