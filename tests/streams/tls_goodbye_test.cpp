#include <weft/streams/tls_stream.hpp>

#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

// How TLS streams end: the good-byes of both sides, and their absence.

TEST_SUITE_BEGIN("streams.tls_goodbye");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::memory_network;
using weft::memory_network_stream;
using weft::tls_stream;

void check_error_queue_is_empty() {
    check(::ERR_peek_error() == 0, "nothing is left in OpenSSL's error queue");
}

// Counts what is sent.
class counting_stream final : public weft::byte_stream {
public:
    counting_stream(memory_network_stream to, std::atomic<std::size_t>& sent)
        : to_(std::move(to)), sent_(sent) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override { return to_.receive_some(target); }
    void send(weft::bytes_view data) override {
        sent_ += data.size();
        to_.send(data);
    }
    void send_eof() override { to_.send_eof(); }
    void close() override { to_.close(); }

private:
    memory_network_stream to_;
    std::atomic<std::size_t>& sent_;
};

// Says good-bye, and is gone without waiting for the other's.
void leave(tls_stream& stream) {
    weft::cancel_scope scope;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { scope.run([&] { stream.close(); }); });
        weft::wait_all_tasks_blocked();
        scope.cancel();
    });
}

// What was sent has arrived, but send() does not return before the gate is open.
class slow_to_send final : public weft::byte_stream {
public:
    slow_to_send(memory_network_stream to, std::optional<weft::event>& gate) : to_(std::move(to)), gate_(gate) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override { return to_.receive_some(target); }
    void send(weft::bytes_view data) override {
        to_.send(data);
        if (gate_) gate_->wait();
    }
    void send_eof() override { to_.send_eof(); }
    void close() override { to_.close(); }

private:
    memory_network_stream to_;
    std::optional<weft::event>& gate_;
};

} // namespace

TEST_CASE("X1, R4: who receives while close() says good-bye hears of that, not of the peer's answer") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        std::optional<weft::event> gate;
        tls_pair pair = shake_hands(slow_to_send(std::move(ends.first), gate), std::move(ends.second));
        pair.client.send("x");
        check(pair.server.receive(1) == "x", "shaken");
        gate.emplace();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { pair.client.receive(); }, "who receives");
            });
            group.start_soon([&] {
                check_throws<weft::end_of_stream>([&] { pair.server.receive(); }, "the peer");
                pair.server.close();
            });
            weft::wait_all_tasks_blocked();
            group.start_soon([&] { pair.client.close(); });
            weft::wait_all_tasks_blocked();
            gate->set();
        });
    });
}

TEST_CASE("TL10, TL12: an update of keys that nobody has answered does not disturb the good-byes") {
    run_test([] {
        memory_network network({.largest_piece = 5}); // the good-bye comes after the update
        auto ends = network.make_pair();
        std::atomic<std::size_t> sent = 0;
        tls_pair pair =
            shake_hands(std::move(ends.first), counting_stream(std::move(ends.second), sent));
        pair.client.update_keys();
        pair.client.send("x");
        check(pair.server.receive(1) == "x", "the server owes an answer");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.server.close(); });
            weft::wait_all_tasks_blocked();
            std::size_t const before = sent;
            // Asked again, after the server's good-bye: OpenSSL would now answer the first request.
            SSL* const client = pair.client.extra(weft::tls_attribute::ssl_object);
            check(::SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED) == 1, "asked");
            check(::SSL_do_handshake(client) == 1, "it goes out before the good-bye");
            pair.client.close();
            weft::wait_all_tasks_blocked();
            check(sent == before, "nothing follows a good-bye");
        });
    });
}

TEST_CASE("TL5: a peer that says good-bye and goes, while we send, has not cut anything off") {
    run_test([] {
        memory_network network;
        tls_pair pair = shake_hands(network);
        pair.server.send("last words");
        leave(pair.server);
        for (int time = 0; time < 2; ++time)
            check_throws<weft::broken_resource_error>([&] { pair.client.send("x"); },
                                                      "nobody there");
        check(pair.client.receive() == "last words", "what was said is received");
        for (int time = 0; time < 2; ++time)
            check_throws<weft::end_of_stream>([&] { pair.client.receive(); }, "and then the end");
        check_throws<weft::broken_resource_error>([&] { pair.client.send("x"); }, "as before");
        pair.client.close();
        check_error_queue_is_empty();
    });
}

TEST_CASE("TL10: a peer that says good-bye and goes lets close() and unwrap() end well") {
    run_test([] {
        for (bool const unwraps : {false, true}) {
            memory_network network;
            tls_pair pair = shake_hands(network);
            leave(pair.server);
            if (unwraps)
                pair.client.unwrap();
            else
                pair.client.close();
            check_throws<weft::closed_resource_error>([&] { pair.client.receive(); }, "closed");
        }
    });
}

TEST_CASE("TL5, TL11: a peer that goes without a good-bye, while we send, has cut us off") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        pair.server.send("last words");
        ends.second.close();
        check_throws<weft::broken_resource_error>([&] { pair.client.send("x"); }, "nobody there");
        check(pair.client.receive() == "last words", "what was said is received");
        check_throws<weft::broken_resource_error>([&] { pair.client.receive(); }, "cut off");
        check_throws<weft::broken_resource_error>([&] { pair.client.close(); }, "TL11");

        tls_pair other = shake_hands(network);
        weft::close_forcefully(other.server);
        check_throws<weft::broken_resource_error>([&] { other.client.close(); }, "TL11");
        check_throws<weft::closed_resource_error>([&] { other.client.receive(); }, "it is closed");
    });
}

TEST_CASE(
    "R1, R5: leaving the block closes at once, without a good-bye, and what was thrown passes") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(std::move(ends.first), std::move(ends.second));
        check_throws<std::out_of_range>(
            [&] {
                tls_stream const client = std::move(pair.client);
                throw std::out_of_range("from the block");
            },
            "it passes");
        check_throws<weft::broken_resource_error>([&] { pair.server.receive(); },
                                                  "there was no good-bye");
    });
}

TEST_CASE("TL5: an end without a good-bye is an error where the standard counts, with its reason") {
    run_test([] {
        for (bool const standard : {true, false}) {
            memory_network network;
            auto ends = network.make_pair();
            tls_pair pair = shake_hands(ends.first, ends.second, {.standard_compatible = standard});
            pair.server.send("last words");
            ends.second.close();
            check(pair.client.receive() == "last words", "what came before");
            if (!standard) {
                check_throws<weft::end_of_stream>([&] { pair.client.receive(); }, "the end");
                check_throws<weft::end_of_stream>([&] { pair.client.receive(); }, "again");
                continue;
            }
            std::string reason;
            try {
                pair.client.receive();
            } catch (weft::broken_resource_error const& failure) {
                try {
                    std::rethrow_if_nested(failure);
                } catch (weft::tls_error const& cause) {
                    reason = cause.reason();
                }
            }
            check(reason.find("unexpected eof") != reason.npos, "OpenSSL's reason: " + reason);
            check_throws<weft::broken_resource_error>([&] { pair.client.receive(); }, "again");
            check_throws<weft::broken_resource_error>([&] { pair.client.send("x"); },
                                                      "sending, too");
            check_error_queue_is_empty();
            check_throws<weft::broken_resource_error>([&] { pair.client.close(); }, "TL11");
            check_throws<weft::closed_resource_error>([&] { pair.client.receive(); }, "closed");
            check_throws<weft::closed_resource_error>([&] { ends.first.receive(); }, "underneath");
        }
    });
}

TEST_CASE("TL9: unwrap() gives back the stream, and what came after the good-bye") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check(pair.server.receive() == "secret", "until now");
                auto [transport, rest] = pair.server.unwrap();
                check(rest.empty(), "nothing more came from the client");
                transport.send("in plain text");
            });
            pair.client.send("secret");
            auto [transport, rest] = pair.client.unwrap();
            while (rest.size() < 13)
                rest += transport.receive();
            check(rest == "in plain text", "nothing is lost: " + rest);
            check_throws<weft::closed_resource_error>([&] { pair.client.send("x"); }, "it is over");
            check_throws<weft::closed_resource_error>([&] { pair.client.unwrap(); }, "once only");
        });
        pair.client.close();
        ends.first.send("still open");
        check(ends.second.receive() == "still open", "close() has nothing left to close");
    });
}

TEST_CASE("TL9: what comes together with the good-bye is given back") {
    explore(2, [] {
        memory_network network({.least_delay = 1s});
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::end_of_stream>([&] { pair.server.receive(); }, "the good-bye");
                auto [transport, rest] = pair.server.unwrap();
                transport.send("at once");
            });
            auto [transport, rest] = pair.client.unwrap();
            check(rest + transport.receive() == "at once" || rest == "at once", "nothing is lost");
        });
    });
}

TEST_CASE("TL9: what is sent after our good-bye makes unwrap() fail") {
    run_test({.workers = {1}, .seeds = {0}}, [] {
        tls_pair pair = shake_hands();
        pair.server.send("unread");
        std::string reason;
        try {
            pair.client.unwrap();
        } catch (weft::tls_error const& failure) {
            reason = failure.reason();
        }
        check(reason == "application data after close notify", "OpenSSL's reason: " + reason);
        check_error_queue_is_empty();
    });
}

TEST_SUITE_END();
