#include <weft/streams/tls_stream.hpp>

#include "sockets.hpp"
#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>

// close() of TLS streams: who is inside, who comes meanwhile, who closes, too, and what is left underneath.

TEST_SUITE_BEGIN("streams.tls_close");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::memory_network;
using weft::memory_network_stream;
using weft::tls_stream;

// Takes its time to close, and must be there as long.
class slow_to_close final : public weft::byte_stream {
public:
    struct events {
        weft::event go_on;
        std::atomic<bool> is_closing = false;
        std::atomic<bool> was_there = true;
    };
    slow_to_close(memory_network_stream to, events& of) : to_(std::move(to)), events_(&of) {}
    slow_to_close(slow_to_close&& other) noexcept
        : to_(std::move(other.to_)), events_(std::exchange(other.events_, nullptr)) {}
    ~slow_to_close() override {
        if (events_ != nullptr && events_->is_closing) events_->was_there = false;
    }
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override { return to_.receive_some(target); }
    void send(weft::bytes_view data) override { to_.send(data); }
    void send_eof() override { to_.send_eof(); }
    void close() override {
        events& of = *events_;
        of.is_closing = true;
        of.go_on.wait();
        of.is_closing = false;
        if (of.was_there) to_.close();
    }

private:
    memory_network_stream to_;
    events* events_;
};

// Is closed, but not without an error.
class closes_badly final : public weft::byte_stream {
public:
    explicit closes_badly(memory_network_stream to) : to_(std::move(to)) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override { return to_.receive_some(target); }
    void send(weft::bytes_view data) override { to_.send(data); }
    void send_eof() override { to_.send_eof(); }
    void close() override {
        to_.close();
        throw weft::broken_resource_error("it cannot be closed well");
    }

private:
    memory_network_stream to_;
};

} // namespace

TEST_CASE("R4, R5: who is inside a stream that is destroyed or assigned over hears of that, and so does the peer") {
    auto const expect = [](bool closes, bool assigned) {
        tls_pair pair = shake_hands();
        std::optional<tls_stream> going = std::move(pair.client);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                if (closes) return going->close();
                check_throws<weft::closed_resource_error>([&] { going->receive(); }, "who receives");
            });
            weft::wait_all_tasks_blocked();
            if (assigned)
                going = shake_hands().client;
            else
                going.reset();
        });
        if (closes)
            check_throws<weft::end_of_stream>([&] { pair.server.receive(); }, "the good-bye");
        else
            check_throws<weft::broken_resource_error>([&] { pair.server.receive(); }, "no good-bye");
    };
    for (bool const closes : {false, true})
        for (bool const assigned : {false, true})
            run_test([&] { expect(closes, assigned); });
}

TEST_CASE("a stream that is moved onto itself stays what it is") {
    run_test([] {
        tls_pair pair = shake_hands();
        tls_stream& same = pair.client;
        pair.client = std::move(same);
        pair.client.send("still here");
        check(pair.server.receive() == "still here", "it is");
        close_both(pair);
    });
}

TEST_CASE("R2: close() outside of a run closes the stream underneath, as a socket's does") {
    int descriptor = -1;
    std::optional<tls_pair> pair;
    weft::run([&] {
        weft::test::connection ends = weft::test::connect_pair();
        descriptor = ends.here.extra(weft::socket_attribute::raw_socket);
        pair.emplace(shake_hands(std::move(ends.here), std::move(ends.there)));
    });
    pair->client.close();
    CHECK(::fcntl(descriptor, F_GETFD) == -1);
    weft::run([&] {
        check_throws<weft::broken_resource_error>([&] { pair->server.receive(); }, "without a good-bye");
        pair->client.close();
    });
}

TEST_CASE("TL9, R4: unwrap() does not give away what close() is closing") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        slow_to_close::events events;
        tls_pair pair = shake_hands(slow_to_close(std::move(ends.first), events), ends.second);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { pair.client.unwrap(); }, "closed");
            });
            weft::wait_all_tasks_blocked();
            group.start_soon([&] { pair.client.close(); });
            weft::wait_all_tasks_blocked();
            check(events.is_closing, "it has begun");
            pair.server.unwrap(); // what unwrap() has waited for
            weft::wait_all_tasks_blocked();
            events.go_on.set();
        });
        check(events.was_there, "as long as close() needed it");
        check_throws<weft::end_of_stream>([&] { ends.second.receive(); }, "closed underneath");
    });
}

TEST_CASE("TL9, R4: unwrap() fails as closed when close() wakes it") {
    run_test([] {
        tls_pair pair = shake_hands();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { pair.client.unwrap(); }, "closed");
            });
            weft::wait_all_tasks_blocked();
            pair.client.close();
        });
    });
}

TEST_CASE("TL9, M15: of unwrap() and close() at the same time one has the stream underneath") {
    run_test({.workers = {2, 4}, .seeds = {0, 1, 2}, .times = 5}, [] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(std::move(ends.first), ends.second);
        std::optional<weft::any_byte_stream> given;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                try {
                    pair.server.unwrap();
                } catch (weft::error const&) { // the client was closed instead
                }
            });
            group.start_soon([&] { pair.client.close(); });
            try {
                given.emplace(pair.client.unwrap().first);
            } catch (weft::closed_resource_error const&) { // close() was first
            }
        });
        if (given) {
            given->send("plain");
            check(ends.second.receive() == "plain", "it is open");
        }
        check_throws<weft::closed_resource_error>([&] { pair.client.receive(); }, "either way");
    });
}

TEST_CASE("R4, X8: who comes while close() says good-bye is told that the stream is closed") {
    run_test([] {
        tls_pair pair = shake_hands();
        weft::bytes_view const parts[] = {"x", "y"};
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.client.close(); });
            weft::wait_all_tasks_blocked();
            auto const expect_closed = [](auto call) {
                check_throws<weft::closed_resource_error>(call, "closed, not busy");
            };
            expect_closed([&] { pair.client.receive(); });
            expect_closed([&] { pair.client.send("x"); });
            expect_closed([&] { pair.client.send(parts); });
            expect_closed([&] { pair.client.unwrap(); });
            expect_closed([&] { pair.client.update_keys(); });
            pair.server.close(); // what the good-bye waits for
        });
    });
}

TEST_CASE("TL10: close() with a peer that says nothing is ended by cancellation, and has closed") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        check(!weft::move_on_after(10ms, [&] { pair.client.close(); }), "it waits");
        check_throws<weft::closed_resource_error>([&] { ends.first.receive(); }, "it is closed");
        weft::close_forcefully(pair.server);
        check_throws<weft::closed_resource_error>([&] { ends.second.receive(); }, "this one, too");
    });
}

TEST_CASE("TL10: what closing the stream underneath throws does not take the place of what came before") {
    run_test([] {
        memory_network network;
        auto const shake_badly = [&] {
            auto ends = network.make_pair();
            return shake_hands(closes_badly(std::move(ends.first)), std::move(ends.second));
        };
        tls_pair silent = shake_badly();
        check(!weft::move_on_after(10ms, [&] { silent.client.close(); }), "the cancellation");
        tls_pair unheard = shake_badly();
        unheard.server.send("unread");
        check_throws<weft::tls_error>([&] { unheard.client.close(); }, "what came after our good-bye");
        tls_pair good = shake_badly();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { good.server.close(); });
            check_throws<weft::broken_resource_error>([&] { good.client.close(); }, "there was nothing before");
        });
    });
}

namespace {

// Of two ends that are left open; the peer says nothing.
void check_cut_short(tls_stream closed, weft::any_byte_stream underneath,
                     void (*cut)(weft::resource&) = weft::close_forcefully) {
    weft::with_task_group([&](weft::task_group& group) {
        auto const first = group.create_task([&] { closed.close(); });
        weft::wait_all_tasks_blocked();
        check(!first.done(), "it waits");
        cut(closed);
        check_throws<weft::closed_resource_error>([&] { underneath.receive(); }, "it is closed");
        first.wait();
    });
    check_throws<weft::closed_resource_error>([&] { closed.receive(); }, "and says so");
    closed.close();
}

} // namespace

TEST_CASE("R2, R3, TL10: close_forcefully() ends a close() that waits for a peer that says nothing") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        check_cut_short(std::move(pair.client), ends.first);
        ends.second.close();
    });
}

TEST_CASE("R3, TL10: so it does where the stream underneath is TLS, too") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair outer = shake_hands(ends.first, ends.second);
        tls_pair inner = shake_hands(outer.client, outer.server);
        check_cut_short(std::move(inner.client), ends.first);
        ends.second.close();
    });
}

TEST_CASE("R2, TL10: a close() by an OS thread ends one that waits for a peer that says nothing") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        check_cut_short(std::move(pair.client), ends.first, [](weft::resource& closed) {
            weft::to_thread::run_sync([&] { closed.close(); });
        });
        ends.second.close();
    });
}

TEST_CASE("R2: a cancelled close() closes, also while another one says good-bye") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        weft::with_task_group([&](weft::task_group& group) {
            auto const first = group.create_task([&] { pair.client.close(); });
            auto const second = group.create_task([&] { pair.client.close(); });
            weft::wait_all_tasks_blocked();
            check(!first.done() && !second.done(), "both wait for the peer");
            second.cancel();
            first.wait();
            check_throws<weft::task_cancelled>([&] { second.wait(); }, "cancelled");
            check_throws<weft::closed_resource_error>([&] { ends.first.receive(); }, "closed");
        });
        ends.second.close();
    });
}

TEST_CASE("R2: a second close() returns when the first one has closed") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.client.close(); });
            weft::wait_all_tasks_blocked();
            auto const second = group.create_task([&] {
                pair.client.close();
                check_throws<weft::closed_resource_error>([&] { ends.first.receive(); }, "closed");
            });
            weft::wait_all_tasks_blocked();
            check(!second.done(), "the peer has not said good-bye");
            pair.server.close();
            second.wait();
        });
        pair.client.close();
        weft::cancel_scope scope;
        scope.cancel();
        scope.run([&] { pair.client.close(); });
        check(!scope.cancelled_caught(), "there is nothing left to do");
    });
}

TEST_CASE("TL9, R2: close() after an unwrap() leaves the stream that was given back alone") {
    run_test([] {
        memory_network network;
        auto ends = network.make_pair();
        tls_pair pair = shake_hands(ends.first, ends.second);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.server.unwrap(); });
            pair.client.unwrap();
        });
        pair.client.close();
        weft::close_forcefully(pair.client);
        ends.first.send("plain");
        check(ends.second.receive() == "plain", "it is open");
    });
}

TEST_CASE("M15: whom close() has woken may find the stream moved or destroyed") {
    run_test([] {
        for (bool const destroys : {false, true})
            for (bool const is_received_from : {false, true}) {
                memory_network network;
                auto ends = network.make_pair();
                tls_pair pair = shake_hands(ends.first, ends.second);
                auto owned = std::make_unique<tls_stream>(std::move(pair.client));
                std::optional<tls_stream> elsewhere;
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon([&closed = *owned, is_received_from] {
                        if (!is_received_from) return closed.close();
                        check_throws<weft::closed_resource_error>([&] { closed.receive(); },
                                                                  "woken");
                    });
                    weft::wait_all_tasks_blocked();
                    weft::close_forcefully(*owned);
                    if (!destroys) elsewhere.emplace(std::move(*owned));
                    owned.reset();
                });
                ends.second.close();
            }
    });
}

TEST_CASE("TL4, X1: that the stream underneath was closed is told each time") {
    run_test([] {
        for (bool const sends_first : {false, true}) {
            memory_network network;
            auto ends = network.make_pair();
            tls_pair pair = shake_hands(ends.first, ends.second);
            ends.first.close();
            for (int time = 0; time < 3; ++time) {
                if (sends_first)
                    check_throws<weft::closed_resource_error>([&] { pair.client.send("x"); },
                                                              "sending");
                check_throws<weft::closed_resource_error>([&] { pair.client.receive(); },
                                                          "receiving");
                check_throws<weft::closed_resource_error>([&] { pair.client.send("x"); },
                                                          "sending");
            }
            check_throws<weft::closed_resource_error>([&] { pair.client.close(); }, "good-bye");
            pair.client.close();
        }
    });
}

TEST_CASE("TL10: where the standard does not count close() waits for nobody") {
    run_test([] {
        tls_pair pair = shake_hands({.standard_compatible = false});
        pair.client.close();
        check_throws<weft::end_of_stream>([&] { pair.server.receive(); }, "the end");
        pair.server.close();
    });
}

TEST_SUITE_END();
