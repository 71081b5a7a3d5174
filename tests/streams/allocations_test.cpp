#include "support/failing_memory.hpp"
#include "unix_sockets.hpp"

#include <weft/runtime/inspect.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/udp.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

// What sending and receiving cost in memory: nothing, once a connection has begun, and a string for a datagram;
// and what is left behind where there is none. This program counts what it asks for, and lets one request fail.

TEST_SUITE_BEGIN("streams.allocations");

using weft::test::allocations;
using weft::test::requests_until_failure;

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::connect_pair;
using weft::test::port_of;
using weft::test::run_test;

constexpr std::size_t rounds = 200;

// How often `there` and `back` together allocate, when they have done it some times before.
template <class There, class Back> std::size_t count_allocations(There there, Back back) {
    std::size_t count = 0;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            for (std::size_t round = 0; round < 2 * rounds; ++round)
                back();
        });
        for (std::size_t round = 0; round < rounds; ++round)
            there();
        count = allocations;
        for (std::size_t round = 0; round < rounds; ++round)
            there();
        count = allocations - count;
    });
    return count;
}

template <class Pair> void expect_no_allocations(Pair pair) {
    std::array<std::byte, 100> space, other;
    weft::bytes_view const parts[] = {"gathered ", "parts"};
    auto const ask = [&] {
        pair.here.send("a question");
        pair.here.receive_some(space);
    };
    auto const answer = [&] {
        pair.there.receive_some(other);
        pair.there.send(parts);
    };
    check(count_allocations(ask, answer) == 0, "not once");
    auto const know = [&] { // it is there already
        pair.here.send("x");
        pair.there.receive_some(other);
    };
    check(count_allocations(know, [] {}) == 0, "nor where nobody waits");
}

// For calls that must not fail: whether it asked for memory, of which there was none.
template <class Call> bool asks_for_memory(Call call) {
    requests_until_failure = 1;
    call();
    return std::exchange(requests_until_failure, 0) == 0;
}

} // namespace

TEST_CASE("KS11: receiving and sending allocate nothing, whether they wait or not") {
    run_test({.workers = {1}, .seeds = {}}, [] {
        expect_no_allocations(connect_pair());
        expect_no_allocations(weft::test::connect_unix_pair());
    });
}

TEST_CASE("KD3: a datagram costs not more than a string, and that if it is not short; a batch a vector") {
    run_test({.workers = {1}, .seeds = {}}, [] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
        std::vector<weft::bytes> const brief{"a question"}, longer{weft::bytes(100, 'x')};
        auto const answer = [&server] { // to its sender
            std::vector<weft::datagram> const asked = server.receive_many();
            server.send_many(asked);
        };
        auto const ask = [&client](std::vector<weft::bytes> const& items) {
            return [&client, &items] {
                client.send_many(items);
                client.receive();
            };
        };
        check(count_allocations(ask(brief), answer) <= rounds, "the server's vector");
        check(count_allocations(ask(longer), answer) <= 3 * rounds, "and a string on both sides");
    });
}

TEST_CASE("an object for which a stream has no memory stays with its sender, in a box too") {
    struct boxed { // its move may throw
        explicit boxed(std::string is) : text(std::move(is)) {}
        boxed(boxed&& other) noexcept(false) : text(std::move(other.text)) {}
        boxed& operator=(boxed&& other) noexcept(false) {
            text = std::move(other.text);
            return *this;
        }
        std::string text;
    };
    auto [sender, receiver] = weft::create_memory_object_stream<boxed>(4);
    boxed item("kept");
    int refusals = 0;
    for (int request = 1; requests_until_failure == 0; ++request) {
        requests_until_failure = request;
        try {
            if (sender.try_send(item)) break;
        } catch (std::bad_alloc const&) {
            ++refusals;
        }
        CHECK(item.text == "kept");
    }
    requests_until_failure = 0;
    CHECK(refusals == 2); // the box, the buffer
    CHECK(receiver.receive_nowait().text == "kept");
}

TEST_CASE("R2, KS8: a connection in memory is closed without memory, and both sides hear of it") {
    run_test({.workers = {1}}, [] {
        weft::memory_network network;
        auto [here, there] = network.make_pair();
        weft::with_task_group([&, &one = here, &other = there](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { one.receive(); }, "one who waits here");
            });
            group.start_soon([&] {
                check_throws<weft::end_of_stream>([&] { other.receive(); }, "one who waits there");
            });
            weft::wait_all_tasks_blocked();
            check(!asks_for_memory([&] { one.close(); }), "closed");
        });
        check_throws<weft::end_of_stream>([&, &other = there] { other.receive(); }, "again");
        check(!asks_for_memory([&, &other = there] { other.close(); }), "closed, too");
    });
}

TEST_CASE("R2, R4: a listener in memory is closed without memory, and all who wait hear of it") {
    run_test({.workers = {1}}, [] {
        weft::memory_network network;
        auto accepting = network.listen(80);
        auto listener = network.listen(81);
        auto client = network.connect(81);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { accepting.accept(); }, "one who accepts");
            });
            group.start_soon([&] {
                check_throws<weft::broken_resource_error>([&] { client.receive(); }, "one not accepted");
            });
            weft::wait_all_tasks_blocked();
            check(!asks_for_memory([&] { accepting.close(); }), "one");
            check(!asks_for_memory([&] { listener.close(); }), "the other");
        });
    });
}

TEST_CASE("R5: destroyed, connections and listeners in memory are closed without memory") {
    run_test({.workers = {1}}, [] {
        weft::memory_network network;
        std::optional ends = network.make_pair();
        std::optional listener = network.listen(80);
        auto client = network.connect(80);
        check(!asks_for_memory([&] { ends.reset(); }), "both ends");
        check(!asks_for_memory([&] { listener.reset(); }), "a listener");
        check_throws<weft::broken_resource_error>([&] { client.receive(); }, "nobody accepts");
    });
}

TEST_SUITE_END();
