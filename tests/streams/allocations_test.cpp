#include "sockets.hpp"
#include "support/failing_memory.hpp"

#include <weft/streams/memory.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <new>
#include <string>
#include <utility>

// What sending and receiving cost in memory: nothing, once a connection has begun; and what is left
// behind where there is none. This program counts what it asks for, and lets one request fail.

TEST_SUITE_BEGIN("streams.allocations");

using weft::test::allocations;
using weft::test::requests_until_failure;

namespace {

using weft::test::check;
using weft::test::connect_pair;
using weft::test::connection;
using weft::test::run_test;

constexpr int rounds = 200;

// How often `there` and `back` together allocate, when they have done it some times before.
template <class There, class Back> std::size_t count_allocations(There there, Back back) {
    std::size_t count = 0;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            for (int round = 0; round < 2 * rounds; ++round)
                back();
        });
        for (int round = 0; round < rounds; ++round)
            there();
        count = allocations;
        for (int round = 0; round < rounds; ++round)
            there();
        count = allocations - count;
    });
    return count;
}

} // namespace

TEST_CASE("KS11: receiving and sending allocate nothing, whether they wait or not") {
    run_test({.workers = {1}, .seeds = {}}, [] {
        connection pair = connect_pair();
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

TEST_SUITE_END();
