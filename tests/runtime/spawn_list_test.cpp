#include "runtime/src/spawn_list.hpp"

#include "support/run_test.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

using namespace weft::detail;
using weft::test::slowdown;

TEST_SUITE("runtime.spawn_list") {
    TEST_CASE("G4: the owner takes the newest, others the oldest") {
        std::vector<fiber> fibers(6);
        spawn_list list(false);
        CHECK(list.empty());
        CHECK(list.pop_newest() == nullptr);
        CHECK(list.pop_oldest() == nullptr);
        for (fiber& each : fibers)
            list.push(each);
        CHECK(list.pop_newest() == &fibers[5]);
        CHECK(list.pop_oldest() == &fibers[0]);
        CHECK(list.pop_newest() == &fibers[4]);
        CHECK(list.pop_oldest() == &fibers[1]);
        CHECK(list.pop_oldest() == &fibers[2]);
        CHECK_FALSE(list.empty());
        CHECK(list.pop_newest() == &fibers[3]);
        CHECK(list.empty());
        list.push(fibers[0]);
        CHECK(list.pop_oldest() == &fibers[0]);
    }

    TEST_CASE("G4: a thief takes up to half of the oldest, no more than it may") {
        std::vector<fiber> fibers(10);
        std::array<fiber*, 32> out;
        spawn_list victim(false);
        CHECK(victim.take_oldest(out.data(), 32) == 0);
        for (fiber& each : fibers)
            victim.push(each);
        CHECK(victim.take_oldest(out.data(), 32) == 5);
        for (unsigned number = 0; number < 5; ++number)
            CHECK(out[number] == &fibers[number]);
        CHECK(victim.take_oldest(out.data(), 2) == 2);
        CHECK(out[1] == &fibers[6]);
        CHECK(victim.pop_oldest() == &fibers[7]);
    }

    TEST_CASE("G4: it grows in order wherever it begins, and gives back what it grew by") {
        std::vector<fiber> fibers(3 * spawn_list::kept_capacity);
        for (bool const alone : {true, false}) {
            spawn_list list(alone);
            for (unsigned number = 0; number < 100; ++number) { // begin somewhere in the ring
                list.push(fibers[number]);
                CHECK(list.pop_oldest() == &fibers[number]);
            }
            unsigned wrong = 0;
            for (int time = 0; time < 2; ++time) {
                for (fiber& each : fibers)
                    list.push(each);
                CHECK(list.size() == fibers.size());
                for (std::size_t number = 0; number < 1000; ++number)
                    wrong += list.pop_oldest() != &fibers[number];
                for (std::size_t number = fibers.size(); number-- > 1000;)
                    wrong += list.pop_newest() != &fibers[number];
                CHECK(list.empty());
            }
            CHECK(wrong == 0);
        }
    }

    TEST_CASE("M12: under thieves each fiber comes out exactly once") {
        unsigned const count = 100'000 / unsigned(slowdown);
        std::vector<fiber> fibers(count);
        std::vector<std::atomic<int>> seen(count);
        for (unsigned number = 0; number < count; ++number)
            fibers[number].index = number;
        spawn_list list(false);
        std::atomic<bool> done{false};
        auto const note = [&](fiber* one) {
            if (one != nullptr) ++seen[one->index];
        };
        std::vector<std::thread> threads;
        for (unsigned thief = 0; thief < 3; ++thief)
            threads.emplace_back([&, thief] {
                std::array<fiber*, 32> out;
                for (bool last = false; !last;) {
                    last = done;
                    std::uint32_t const taken = list.take_oldest(out.data(), thief == 0 ? 1 : 32);
                    for (std::uint32_t step = 0; step < taken; ++step)
                        note(out[step]);
                }
            });
        for (unsigned number = 0; number < count; ++number) {
            list.push(fibers[number]);
            if (number % 4 == 0) note(list.pop_newest());
        }
        while (fiber* const one = list.pop_newest())
            note(one);
        done = true;
        for (std::thread& thread : threads)
            thread.join();
        while (fiber* const one = list.pop_newest())
            note(one);
        unsigned wrong = 0;
        for (auto const& times : seen)
            if (times != 1) ++wrong;
        CHECK(wrong == 0);
    }
}
