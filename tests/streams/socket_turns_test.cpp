#include <weft/streams/socket.hpp>

#include "sockets.hpp"
#include "unix_sockets.hpp"
#include "support/receive_all.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>

// One reader and one writer: who comes when another is there already, or when the stream is closed.

TEST_SUITE_BEGIN("streams.socket_turns");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::connect_pair;
using weft::test::connection;
using weft::test::receive_all;
using weft::test::run_with_sockets;

} // namespace

TEST_CASE("X8: a receive leaves its guard on every way out, and close() wakes it without the guard") {
    run_with_sockets([] {
        connection pair = connect_pair();
        auto const is_busy = [&] {
            check_throws<weft::busy_resource_error>([&] { pair.here.receive(); }, "turned away");
        };
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(pair.here.receive() == "1", "the first receives"); });
            weft::wait_all_tasks_blocked();
            is_busy();
            is_busy(); // the refused one has left nothing open
            pair.there.send("1");
        });
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pair.here.receive(); });
            weft::wait_all_tasks_blocked();
            is_busy();
            group.cancel();
        });
        pair.there.send("2");
        check(pair.here.receive() == "2", "received after a cancelled one");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { pair.here.receive(); }, "woken");
            });
            weft::wait_all_tasks_blocked();
            is_busy();
            pair.here.close();
        });
    });
}

TEST_CASE("X6, X8: of many that receive at once, cut short or turned away, none costs an octet") {
    run_with_sockets([] {
        connection pair = connect_pair();
        constexpr std::size_t octets = 2000;
        std::atomic<std::size_t> received = 0;
        std::atomic<std::size_t> sum = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 4; ++task)
                group.start_soon([&] {
                    while (received < octets) {
                        weft::move_on_after(50us, [&] {
                            try {
                                weft::bytes const got = pair.here.receive(7);
                                for (char const octet : got)
                                    sum += std::size_t(octet);
                                received += got.size();
                            } catch (weft::busy_resource_error const&) {
                                weft::lowlevel::checkpoint();
                            }
                        });
                    }
                });
            for (std::size_t sent = 0; sent < octets; sent += 10) {
                pair.there.send("0123456789");
                weft::lowlevel::checkpoint();
            }
        });
        check(received == octets && sum == octets / 10 * (10 * '0' + 45), "each octet once");
        pair.there.send("more");
        check(pair.here.receive() == "more", "nobody has left the guard closed");
    });
}

TEST_CASE("X8, X6: of readers that come at the same time one gets in, and close() reaches it") {
    constexpr int count = 8;
    run_with_sockets(
        [] {
            connection pair = connect_pair();
            std::atomic<int> turned_away = 0;
            std::atomic<int> told = 0;
            weft::event all_but_one;
            weft::with_task_group([&](weft::task_group& group) {
                for (int each = 0; each < count; ++each)
                    group.start_soon([&] {
                        try {
                            pair.here.receive();
                        } catch (weft::busy_resource_error const&) {
                            if (++turned_away == count - 1) all_but_one.set();
                        } catch (weft::closed_resource_error const&) {
                            ++told;
                        }
                    });
                all_but_one.wait();
                check(told == 0, "the first is inside");
                pair.here.close(); // needs no turn of its own
            });
            check(turned_away == count - 1 && told == 1, "one of them");
        },
        50);
}

TEST_CASE("X8: readers that take turns lose nothing, and get nothing twice") {
    run_with_sockets([] {
        connection pair = connect_pair();
        constexpr int count = 2000;
        std::array<std::atomic<int>, 256> seen{};
        std::atomic<int> received = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int each = 0; each < 6; ++each)
                group.start_soon([&] {
                    try {
                        for (;;) {
                            try {
                                weft::bytes const octet = pair.there.receive(1);
                                ++seen[static_cast<unsigned char>(octet[0])];
                                ++received;
                            } catch (weft::busy_resource_error const&) {
                                weft::lowlevel::checkpoint();
                            }
                        }
                    } catch (weft::end_of_stream const&) { // all of it has come
                    }
                });
            for (int each = 0; each < count; ++each)
                pair.here.send(std::string(1, char(each)));
            pair.here.send_eof();
        });
        check(received == count, "as many as were sent");
        for (int octet = 0; octet < 256; ++octet)
            check(seen[octet] == count / 256 + (octet < count % 256), "each as often");
    });
}

TEST_CASE("KS7: one reader and one writer; a second is refused, and the first goes on") {
    run_with_sockets([] {
        connection pair = connect_pair();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(pair.here.receive() == "x", "the first reader"); });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { pair.here.receive(); }, "second reader");
            pair.there.send("x");
        });
        std::string const much(10'000'000, 'x');
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                pair.here.send(much);
                pair.here.send_eof();
            });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { pair.here.send("y"); }, "second writer");
            check_throws<weft::busy_resource_error>([&] { pair.here.send_eof(); }, "nor the end");
            check(receive_all(pair.there) == much, "all of the first");
        });
    });
}

TEST_CASE("KS7: a reader and a writer of a new stream both wait and are woken, whoever came first") {
    enum class first { reader, writer, both };
    run_with_sockets([] {
        for (int round = 0; round < 120; ++round) {
            auto const comes_first = first(round % 3);
            auto [ours, theirs] = weft::test::make_socket_pair(SOCK_STREAM);
            std::size_t in_between = 0;
            std::string const much(100'000, 'm');
            for (ssize_t sent; (sent = ::send(ours.get(), much.data(), much.size(), MSG_DONTWAIT)) > 0;)
                in_between += std::size_t(sent);
            auto here = weft::unix_socket_stream::from_socket(ours);
            auto there = weft::unix_socket_stream::from_socket(theirs);
            std::atomic<int> at_the_start = 0;
            auto const meet = [&] { // so that, on two workers, they wait within nanoseconds of one another
                for (++at_the_start; comes_first == first::both && at_the_start < 2;)
                    weft::lowlevel::checkpoint();
            };
            std::function<void()> const read = [&] {
                meet();
                check(here.receive() == "1", "the reader is woken");
            };
            std::function<void()> const write = [&] {
                meet();
                here.send("2");
                here.send_eof();
            };
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon(comes_first == first::reader ? read : write);
                if (comes_first != first::both) weft::wait_all_tasks_blocked();
                group.start_soon(comes_first == first::reader ? write : read);
                weft::wait_all_tasks_blocked();
                check(receive_all(there).size() == in_between + 1, "the writer is woken");
                there.send("1");
            });
        }
    });
}

TEST_CASE("KS8, KS9: close() wakes reader and writer with closed_resource_error") {
    run_with_sockets(
        [] {
            connection pair = connect_pair();
            std::string const much(20'000'000, 'x');
            std::atomic<int> told = 0;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    check_throws<weft::closed_resource_error>([&] { pair.here.receive(); },
                                                              "reader");
                    ++told;
                });
                group.start_soon([&] {
                    check_throws<weft::closed_resource_error>([&] { pair.here.send(much); },
                                                              "writer");
                    ++told;
                });
                weft::wait_all_tasks_blocked();
                pair.here.close();
                pair.here.close();
            });
            check(told == 2, "both");
            check_throws<weft::closed_resource_error>([&] { pair.here.receive(); }, "later");
            check_throws<weft::closed_resource_error>(
                [&] { pair.here.extra(weft::socket_attribute::raw_socket); }, "no descriptor");
        },
        5);
}

TEST_CASE("KS8: cancelled and closed at the same time, nothing is woken twice") {
    run_with_sockets(
        [] {
            connection pair = connect_pair();
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    try {
                        scope.run([&] { pair.here.receive(); });
                    } catch (weft::closed_resource_error const&) { // close() was first
                    }
                });
                weft::wait_all_tasks_blocked();
                group.start_soon([&] { scope.cancel(); });
                group.start_soon([&] { pair.there.send("x"); });
                pair.here.close();
            });
            check_throws<weft::closed_resource_error>([&] { pair.here.receive(); }, "closed");
        },
        100);
}

TEST_CASE("R5, KS17: a stream that is destroyed while somebody waits in it wakes the one who waits") {
    run_with_sockets(
        [] {
            connection pair = connect_pair();
            auto doomed = std::make_unique<weft::socket_stream>(std::move(pair.here));
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([stream = doomed.get()] {
                    std::byte space[8];
                    check_throws<weft::closed_resource_error>(
                        [&] { stream->receive_some(weft::buffer(space)); }, "woken");
                });
                weft::wait_all_tasks_blocked();
                doomed.reset();
            });
        },
        20);
}

TEST_SUITE_END();
