#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

TEST_SUITE("runtime.lowlevel") {
    TEST_CASE("E5: the low-level checkpoints need a task") {
        CHECK_THROWS_AS(lowlevel::checkpoint(), no_event_loop_error);
        CHECK_THROWS_AS(lowlevel::checkpoint_if_cancelled(), no_event_loop_error);
        CHECK_THROWS_AS(lowlevel::cancel_shielded_checkpoint(), no_event_loop_error);
    }

    TEST_CASE("LL1: checkpoint lets the other ready tasks run") {
        run_sim(0, [] {
            with_task_group([](task_group& group) {
                int run = 0;
                for (int task = 0; task < 3; ++task)
                    group.start_soon([&] { ++run; });
                CHECK(run == 0);
                lowlevel::checkpoint();
                CHECK(run == 3);
            });
        });
    }

    TEST_CASE("LL1: checkpoint throws in a cancelled scope, before it lets others run") {
        run_sim(0, [] {
            cancel_scope scope;
            bool run = false;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { run = true; });
                scope.run([&] {
                    scope.cancel();
                    lowlevel::checkpoint();
                });
                CHECK_FALSE(run);
            });
        });
    }

    TEST_CASE("LL1: checkpoint sees a cancellation that comes while others run") {
        run_sim(0, [] {
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { scope.cancel(); });
                CHECK_FALSE(scope.run([] { lowlevel::checkpoint(); }));
            });
        });
    }

    TEST_CASE("LL2: checkpoint_if_cancelled does not yield") {
        run_sim(0, [] {
            bool run = false;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { run = true; });
                for (int time = 0; time < 1000; ++time)
                    lowlevel::checkpoint_if_cancelled();
                CHECK_FALSE(run);
            });
        });
    }

    TEST_CASE("LL2: checkpoint_if_cancelled throws in a cancelled scope") {
        run_test([] {
            cancel_scope scope;
            CHECK_FALSE(scope.run([&] {
                lowlevel::checkpoint_if_cancelled();
                scope.cancel();
                lowlevel::checkpoint_if_cancelled();
                check(false, "not reached");
            }));
        });
    }

    TEST_CASE("LL3: cancel_shielded_checkpoint yields and never throws") {
        run_sim(0, [] {
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                int run = 0;
                group.start_soon([&] { ++run; });
                CHECK(scope.run([&] {
                    scope.cancel();
                    lowlevel::cancel_shielded_checkpoint();
                    CHECK(run == 1);
                }));
            });
        });
    }

    TEST_CASE("LL4: tasks that loop on checkpoint starve neither each other nor timers nor new tasks") {
        run_test({.seeds = {}}, [] {
            std::atomic<bool> stop{false};
            std::atomic<int> looping{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 8; ++task)
                    group.start_soon([&] {
                        ++looping;
                        while (!stop)
                            lowlevel::checkpoint();
                    });
                while (looping < 8)
                    lowlevel::checkpoint();
                sleep(1ms); // timers
                std::atomic<bool> ran{false};
                with_task_group([&](task_group& more) { more.start_soon([&] { ran = true; }); });
                CHECK(ran);
                stop = true;
            });
        });
    }

    TEST_CASE("LL4: two tasks that wake each other all the time starve neither others nor timers") {
        run_test({.seeds = {}}, [] {
            std::atomic<bool> stop{false};
            std::atomic<bool> other_ran{false};
            std::atomic<int> turn{0};
            detail::fiber* players[2] = {};
            std::atomic<int> ready{0};
            with_task_group([&](task_group& group) {
                for (int player = 0; player < 2; ++player)
                    group.start_soon([&, player] {
                        players[player] = detail::current_fiber();
                        if (++ready < 2)
                            while (ready < 2)
                                lowlevel::checkpoint();
                        while (!stop) {
                            detail::parking wait("test");
                            if (stop) {
                                wait.withdraw();
                                break;
                            }
                            ++turn;
                            detail::fiber& other = *players[1 - player];
                            auto const seen = other.wait.load();
                            detail::wake(other, detail::wait_word<>::epoch_of(seen),
                                         detail::wake_reason::event);
                            wait.suspend_until(current_time() + 1ms);
                        }
                    });
                sleep(2ms);
                group.start_soon([&] { other_ran = true; });
                while (!other_ran)
                    sleep(100us);
                stop = true;
            });
            CHECK(other_ran);
        });
    }

    TEST_CASE("LL5: checkpoint notices a deadline that has passed") {
        run_test({.seeds = {}}, [] {
            CHECK_FALSE(move_on_after(1ms, [] {
                for (;;)
                    lowlevel::checkpoint();
            }));
            CHECK_FALSE(move_on_after(1ms, [] {
                for (;;)
                    lowlevel::checkpoint_if_cancelled();
            }));
        });
    }
}
