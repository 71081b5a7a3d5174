#include "runtime/src/ready_ring.hpp"

#include "support/run_test.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

using namespace weft::detail;
using weft::test::slowdown;

TEST_SUITE("runtime.ready_ring") {
    TEST_CASE("M11: first in, first out, until it is full") {
        std::vector<fiber> fibers(ready_ring::capacity + 1);
        auto const ring = std::make_unique<ready_ring>();
        CHECK(ring->empty());
        CHECK(ring->pop(false) == nullptr);
        for (int round = 0; round < 3; ++round) {
            for (std::uint32_t number = 0; number < ready_ring::capacity; ++number)
                CHECK(ring->push(fibers[number]));
            CHECK_FALSE(ring->push(fibers.back()));
            CHECK(ring->size() == ready_ring::capacity);
            for (std::uint32_t number = 0; number < ready_ring::capacity; ++number)
                CHECK(ring->pop(false) == &fibers[number]);
            CHECK(ring->empty());
        }
    }

    TEST_CASE("M11: a thief takes the older half, in order, and returns the oldest") {
        std::vector<fiber> fibers(10);
        auto const victim = std::make_unique<ready_ring>();
        auto const thief = std::make_unique<ready_ring>();
        CHECK(victim->steal_into(*thief) == nullptr);
        for (fiber& each : fibers)
            victim->push(each);
        CHECK(victim->steal_into(*thief) == &fibers[0]);
        for (int number = 1; number < 5; ++number)
            CHECK(thief->pop(false) == &fibers[std::size_t(number)]);
        CHECK(thief->empty());
        for (int number = 5; number < 10; ++number)
            CHECK(victim->pop(false) == &fibers[std::size_t(number)]);
    }

    TEST_CASE("M12: under thieves each fiber comes out exactly once") {
        constexpr unsigned thieves = 3;
        unsigned const count = 200'000 / unsigned(slowdown);
        std::vector<fiber> fibers(count);
        std::vector<std::atomic<int>> seen(count);
        for (unsigned number = 0; number < count; ++number)
            fibers[number].index = number;
        auto const ring = std::make_unique<ready_ring>();
        std::atomic<bool> done{false};
        auto const note = [&](fiber* one) {
            if (one != nullptr) ++seen[one->index];
        };
        std::vector<std::thread> threads;
        for (unsigned thief = 0; thief < thieves; ++thief)
            threads.emplace_back([&] {
                auto const own = std::make_unique<ready_ring>();
                for (bool last = false; !last;) {
                    last = done;
                    note(ring->steal_into(*own));
                    while (fiber* const one = own->pop(false))
                        note(one);
                }
            });
        for (unsigned number = 0; number < count; ++number) {
            while (!ring->push(fibers[number]))
                note(ring->pop(false));
            if (number % 3 == 0) note(ring->pop(false));
        }
        while (fiber* const one = ring->pop(false))
            note(one);
        done = true;
        for (std::thread& thread : threads)
            thread.join();
        while (fiber* const one = ring->pop(false))
            note(one);
        unsigned wrong = 0;
        for (auto const& times : seen)
            if (times != 1) ++wrong;
        CHECK(wrong == 0);
    }

    TEST_CASE("M12: what a stopped thief is still to copy is not written over, though the ring is empty") {
        std::vector<fiber> fibers(2 * ready_ring::capacity);
        auto const victim = std::make_unique<ready_ring>();
        auto const other = std::make_unique<ready_ring>();
        auto const thief = std::make_unique<ready_ring>();
        for (std::uint32_t number = 0; number < ready_ring::capacity; ++number) {
            victim->push(fibers[number]);
            other->push(fibers[ready_ring::capacity + number]);
        }
        auto const claimed = victim->claim_half(); // and here the thief is stopped
        REQUIRE(claimed.count == ready_ring::capacity / 2);
        while (victim->pop(false) != nullptr) {}
        CHECK(victim->empty());
        CHECK(other->steal_into(*victim) == nullptr); // no room: now a thief itself, it goes on looking
        CHECK(thief->has_room_for_half());
        CHECK(victim->move_claimed(claimed, *thief) == &fibers[0]);
        for (std::uint32_t number = 1; number < claimed.count; ++number)
            CHECK(thief->pop(false) == &fibers[number]);
        CHECK(thief->empty());
        CHECK(other->steal_into(*victim) == &fibers[ready_ring::capacity]); // the slots are free again
    }
}
