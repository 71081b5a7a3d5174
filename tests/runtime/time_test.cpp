#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <vector>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

TEST_SUITE("runtime.time") {
    TEST_CASE("E5: sleeping needs a task, the time does not") {
        CHECK_THROWS_AS(weft::sleep(1ns), no_event_loop_error);
        CHECK_THROWS_AS(weft::sleep(0ns), no_event_loop_error);
        CHECK_THROWS_AS(sleep_until(current_time()), no_event_loop_error);
        CHECK_THROWS_AS(sleep_forever(), no_event_loop_error);
        time_point const before = current_time();
        CHECK(current_time() >= before);
        static_assert(std::chrono::is_clock_v<weft::clock>);
        static_assert(weft::clock::is_steady);
    }

    TEST_CASE("E6: the clock never goes backwards, on whatever worker") {
        run_test([] {
            with_task_group([](task_group& group) {
                for (int task = 0; task < 4; ++task)
                    group.start_soon([] {
                        time_point last = current_time();
                        for (int time = 0; time < 100; ++time) {
                            weft::sleep(time % 10 == 0 ? 1us : 0us);
                            time_point const now = current_time();
                            CHECK(now >= last);
                            last = now;
                        }
                    });
            });
        });
    }

    TEST_CASE("E7: sleep never returns early") {
        run_test([] {
            for (duration const delay : {duration(1), duration(1us), duration(1500us)}) {
                time_point const start = current_time();
                weft::sleep(delay);
                CHECK(current_time() >= start + delay);
            }
        });
    }

    TEST_CASE("E7: sleeping no time at all lets others run") {
        for (duration const delay : {duration(0), duration(-1), duration::min()})
            run_sim(0, [delay] {
                with_task_group([&](task_group& group) {
                    bool run = false;
                    group.start_soon([&] { run = true; });
                    weft::sleep(delay);
                    CHECK(run);
                });
            });
    }

    TEST_CASE("E7: duration::max() is for ever") {
        run_test([] { CHECK_FALSE(move_on_after(1ms, [] { weft::sleep(duration::max()); })); });
    }

    TEST_CASE("E8: sleep_until a time that has passed lets others run once") {
        for (time_point const when : {time_point::min(), time_point(-1ns)})
            run_sim(0, [when] {
                with_task_group([&](task_group& group) {
                    bool run = false;
                    group.start_soon([&] { run = true; });
                    sleep_until(when);
                    CHECK(run);
                });
            });
    }

    TEST_CASE("E8: only cancellation ends sleep_forever") {
        run_test([] {
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { CHECK_FALSE(scope.run([] { sleep_forever(); })); });
                weft::sleep(2ms);
                CHECK_FALSE(scope.cancelled_caught());
                scope.cancel();
            });
            CHECK(scope.cancelled_caught());
        });
    }

    TEST_CASE("M11: sleepers wake in the order of their times, equal times in the order of going to sleep") {
        run_sim(0, [] {
            std::vector<int> order;
            with_task_group([&](task_group& group) {
                std::vector<int> const delays{30, 10, 20, 10, 30, 0, 20, 10};
                for (int number = 0; number < int(delays.size()); ++number)
                    group.start_soon([&, number, delay = delays[std::size_t(number)]] {
                        sleep_until(time_point(1s + std::chrono::milliseconds(delay)));
                        order.push_back(number);
                    });
            });
            CHECK(order == std::vector<int>{5, 1, 3, 7, 2, 6, 0, 4});
        });
    }

    TEST_CASE("E6: under sim the clock stands still while anything can run and jumps when nothing can") {
        explore(5, [] {
            time_point const start = current_time();
            auto const real = std::chrono::steady_clock::now();
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&] { CHECK(current_time() == start); });
            });
            weft::sleep(24h);
            CHECK(current_time() == start + 24h);
            CHECK(std::chrono::steady_clock::now() - real < 60s);
        });
    }

    TEST_CASE("E7: a cancelled sleep leaves no timer behind") {
        cancel_at_every_suspension_point([](attempt& at) {
            at.run([] {
                weft::sleep(1s);
                sleep_until(current_time() + 1s);
            });
        });
        run_test([] { // the fixture looks for timers
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 20; ++task)
                    group.start_soon([&] { move_on_after(2h, [] { weft::sleep(1h); }); });
                weft::sleep(1ms);
                group.cancel();
            });
        });
    }

    TEST_CASE("E7: a thousand sleepers on several workers all wake, none early") {
        run_test([] {
            std::atomic<int> woken{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 1000; ++task)
                    group.start_soon([&, task] {
                        time_point const until = current_time() + std::chrono::microseconds(task % 97 * 30);
                        sleep_until(until);
                        if (current_time() >= until) ++woken;
                    });
            });
            CHECK(woken == 1000);
        });
    }
}
