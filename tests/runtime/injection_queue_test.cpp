#include "runtime/src/injection_queue.hpp"

#include "support/run_test.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

using namespace weft::detail;
using weft::test::slowdown;

TEST_SUITE("runtime.injection_queue") {
    TEST_CASE("TR80: what is pushed comes out once, and empty() knows") {
        std::vector<fiber> fibers(100);
        injection_queue queue(injection_queue::producers::many);
        fiber* out[128];
        CHECK(queue.empty());
        CHECK(queue.take(out, 128) == 0);
        queue.push(fibers[0]);
        CHECK_FALSE(queue.empty());
        CHECK(queue.take(out, 128) == 1);
        CHECK(out[0] == &fibers[0]);
        CHECK(queue.empty());
    }

    TEST_CASE("M11: what a ring has no room for comes out once, in the order in which it went in") {
        std::vector<fiber> fibers(100);
        injection_queue overflow(injection_queue::producers::one);
        fiber* out[128];
        for (fiber& each : fibers)
            overflow.push_own(each);
        std::size_t taken = 0;
        while (!overflow.empty()) {
            std::size_t const count = overflow.take(out, 7);
            for (std::size_t place = 0; place < count; ++place)
                CHECK(out[place] == &fibers[taken + place]);
            CHECK(count <= 7);
            taken += count;
        }
        CHECK(taken == 100);
    }

    TEST_CASE("TR80: with more threads than shared producers each fiber comes out exactly once") {
        constexpr unsigned producers = 12;
        unsigned const each_pushes = 4000 / unsigned(slowdown);
        unsigned const count = producers * each_pushes;
        std::vector<fiber> fibers(count);
        std::vector<std::atomic<int>> seen(count);
        for (unsigned number = 0; number < count; ++number)
            fibers[number].index = number;
        injection_queue queue(injection_queue::producers::many);
        std::atomic<unsigned> taken{0};
        std::vector<std::thread> threads;
        for (unsigned producer = 0; producer < producers; ++producer)
            threads.emplace_back([&, producer] {
                for (unsigned step = 0; step < each_pushes; ++step)
                    queue.push(fibers[producer * each_pushes + step]);
            });
        for (unsigned consumer = 0; consumer < 2; ++consumer)
            threads.emplace_back([&] {
                fiber* out[16];
                while (taken < count) {
                    std::size_t const got = queue.take(out, 16);
                    for (std::size_t place = 0; place < got; ++place)
                        ++seen[out[place]->index];
                    taken += unsigned(got);
                    if (got == 0) std::this_thread::yield();
                }
            });
        for (std::thread& thread : threads)
            thread.join();
        unsigned wrong = 0;
        for (auto const& times : seen)
            if (times != 1) ++wrong;
        CHECK(wrong == 0);
        CHECK(queue.empty());
    }
}
