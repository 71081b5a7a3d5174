#include "runtime/src/timer_heap.hpp"

#include "support/run_test.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using namespace weft;
using namespace weft::detail;
using namespace std::chrono_literals;
using weft::test::slowdown;

namespace {

// Control blocks whose waits are armed: a timer ends one, and since they never park, schedules nobody.
std::vector<fiber> armed(std::size_t count) {
    std::vector<fiber> fibers(count);
    for (fiber& each : fibers)
        each.wait.arm(true);
    return fibers;
}

bool woken(fiber const& of) { return of.wait.is_delivered(); }

} // namespace

TEST_SUITE("runtime.timer_heap") {
    TEST_CASE("E7: timers end in the order of their times, none early") {
        auto fibers = armed(200);
        timer_heap heap(0);
        CHECK(heap.earliest() == time_point::max());
        std::mt19937 random(1);
        std::vector<int> times(fibers.size());
        for (std::size_t number = 0; number < fibers.size(); ++number) {
            times[number] = int(random() % 50);
            heap.insert(fibers[number], time_point(std::chrono::milliseconds(times[number])));
        }
        CHECK(heap.size() == fibers.size());
        for (int now = -1; now < 51; ++now) {
            heap.expire(time_point(std::chrono::milliseconds(now)));
            for (std::size_t number = 0; number < fibers.size(); ++number)
                CHECK(woken(fibers[number]) == (times[number] <= now));
        }
        CHECK(heap.size() == 0);
        CHECK(heap.earliest() == time_point::max());
    }

    TEST_CASE("E7: insert says whether no other timer is earlier") {
        auto fibers = armed(4);
        timer_heap heap(0);
        CHECK(heap.insert(fibers[0], time_point(5ms)));
        CHECK_FALSE(heap.insert(fibers[1], time_point(6ms)));
        CHECK_FALSE(heap.insert(fibers[2], time_point(5ms)));
        CHECK(heap.insert(fibers[3], time_point(4ms)));
        CHECK(heap.earliest() == time_point(4ms));
        CHECK(heap.remove(fibers[3]));
        CHECK_FALSE(heap.remove(fibers[3]));
        CHECK(heap.earliest() == time_point(5ms));
        CHECK(heap.expire(time_point(5ms)) == 2);
        CHECK(heap.expire(time_point(5ms)) == 0);
        CHECK(heap.remove(fibers[1]));
        CHECK(heap.size() == 0);
    }

    TEST_CASE("C24: a timer that is moved stays in its heap, at the place of its new time") {
        std::vector<cancel_scope> scopes(20);
        timer_heap heap(0);
        CHECK_FALSE(heap.move(scopes[0], time_point(1ms)).has_value());
        for (std::size_t number = 0; number < scopes.size(); ++number)
            heap.insert(scopes[number], time_point(duration(100 + number)));
        CHECK(heap.move(scopes[7], time_point(duration(99))) == true);
        CHECK(heap.earliest() == time_point(duration(99)));
        CHECK(heap.move(scopes[7], time_point(duration(200))) == false);
        CHECK(heap.earliest() == time_point(duration(100)));
        CHECK(heap.move(scopes[0], time_point(duration(101))) == false);
        CHECK(heap.size() == scopes.size());
        std::vector<int> times(scopes.size());
        std::mt19937 random(3);
        for (int step = 0; step < 1000; ++step) {
            std::size_t const number = random() % scopes.size();
            times[number] = int(random() % 1000);
            heap.move(scopes[number], time_point(duration(times[number])));
            if (step < 500) continue; // by now each has been moved
            CHECK(heap.earliest() == time_point(duration(*std::min_element(times.begin(), times.end()))));
        }
        for (cancel_scope& scope : scopes)
            CHECK(heap.remove(scope));
        CHECK_FALSE(heap.move(scopes[0], time_point(1ms)).has_value());
    }

    TEST_CASE("E7: removal from any place keeps the order") {
        std::mt19937 random(7);
        for (int round = 0; round < 50; ++round) {
            auto fibers = armed(64);
            std::vector<std::pair<int, std::size_t>> expected;
            timer_heap heap(0);
            std::vector<int> times(fibers.size());
            for (std::size_t number = 0; number < fibers.size(); ++number) {
                times[number] = int(random() % 1000);
                heap.insert(fibers[number], time_point(duration(times[number])));
            }
            std::vector<bool> removed(fibers.size());
            for (int step = 0; step < 32; ++step) {
                std::size_t const victim = random() % fibers.size();
                CHECK(heap.remove(fibers[victim]) == !removed[victim]);
                removed[victim] = true;
            }
            while (heap.earliest() != time_point::max()) {
                time_point const next = heap.earliest();
                int least = 1000;
                for (std::size_t number = 0; number < fibers.size(); ++number)
                    if (!removed[number] && !woken(fibers[number])) least = std::min(least, times[number]);
                CHECK(next == time_point(duration(least)));
                heap.expire(next);
            }
            for (std::size_t number = 0; number < fibers.size(); ++number)
                CHECK(woken(fibers[number]) != removed[number]);
        }
    }

    TEST_CASE("TR77: a timer is either removed or ends the wait, never both, never neither") {
        std::size_t const count = 20'000 / std::size_t(slowdown);
        auto fibers = armed(count);
        timer_heap heap(0);
        for (std::size_t number = 0; number < count; ++number)
            heap.insert(fibers[number], time_point(duration(number)));
        std::vector<char> removed(count);
        std::atomic<bool> go{false};
        std::thread expirer([&] {
            while (!go) {}
            for (std::size_t now = 0; now < count; now += 3)
                heap.expire(time_point(duration(now)));
            heap.expire(time_point(duration(count)));
        });
        go = true;
        for (std::size_t number = 0; number < count; number += 2)
            removed[number] = heap.remove(fibers[number]);
        expirer.join();
        std::size_t wrong = 0;
        for (std::size_t number = 0; number < count; ++number)
            if (woken(fibers[number]) == bool(removed[number])) ++wrong;
        CHECK(wrong == 0);
        CHECK(heap.size() == 0);
    }
}
