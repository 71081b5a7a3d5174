#include "runtime/src/spawn_list.hpp"

#include "support/run_test.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

using namespace weft::detail;
using weft::test::slowdown;

TEST_SUITE("runtime.spawn_list") {
    TEST_CASE("G4: the owner takes the newest, others the oldest") {
        std::vector<fiber> fibers(6);
        spawn_list list;
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

    TEST_CASE("G4: a thief takes up to half of the oldest, no more than it may, and begins with their newest") {
        std::vector<fiber> fibers(10);
        spawn_list victim, thief;
        CHECK(victim.steal_into(thief, 32) == nullptr);
        for (fiber& each : fibers)
            victim.push(each);
        CHECK(victim.steal_into(thief, 32) == &fibers[4]);
        for (int number = 0; number < 4; ++number)
            CHECK(thief.pop_oldest() == &fibers[std::size_t(number)]);
        CHECK(thief.empty());
        CHECK(victim.steal_into(thief, 2) == &fibers[6]);
        CHECK(thief.pop_newest() == &fibers[5]);
        CHECK(thief.empty());
        CHECK(victim.pop_oldest() == &fibers[7]);
    }

    TEST_CASE("M12: under thieves each fiber comes out exactly once") {
        unsigned const count = 100'000 / unsigned(slowdown);
        std::vector<fiber> fibers(count);
        std::vector<std::atomic<int>> seen(count);
        for (unsigned number = 0; number < count; ++number)
            fibers[number].index = number;
        spawn_list list;
        std::atomic<bool> done{false};
        auto const note = [&](fiber* one) {
            if (one != nullptr) ++seen[one->index];
        };
        std::vector<std::thread> threads;
        for (unsigned thief = 0; thief < 3; ++thief)
            threads.emplace_back([&, thief] {
                spawn_list own;
                for (bool last = false; !last;) {
                    last = done;
                    note(thief == 0 ? list.pop_oldest() : list.steal_into(own, 32));
                    while (fiber* const one = own.pop_newest())
                        note(one);
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
