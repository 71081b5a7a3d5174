#include "support/run_test.hpp"

#include <weft/runtime/blocking_region.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

bool checkpoint_throws() {
    try {
        lowlevel::checkpoint();
        return false;
    } catch (cancelled const&) { // the test asks just this
        return true;
    }
}

// Of two threads that wait for each other each time: on a busy machine it is the time that ends them.
constexpr int times = 3000;
constexpr auto time_for_attempts = 5s;

} // namespace

TEST_SUITE("runtime.shields_deadlines") {

    TEST_CASE("C17: lifting a shield lets the cancellation in, also for a task that waits") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner({.shield = true});
            outer.run([&] {
                inner.run([&] {
                    outer.cancel();
                    CHECK_FALSE(checkpoint_throws());
                    inner.set_shield(false);
                    CHECK(checkpoint_throws());
                    inner.set_shield(true);
                    CHECK_FALSE(checkpoint_throws());
                });
            });

            cancel_scope around;
            cancel_scope shield({.shield = true});
            bool woken = false;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    around.run([&] {
                        shield.run([&] {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) {
                                woken = true;
                                throw;
                            }
                        });
                    });
                });
                wait_all_tasks_blocked();
                around.cancel();
                wait_all_tasks_blocked();
                shield.set_shield(false);
            });
            CHECK(woken);
        });
    }

    TEST_CASE("C17: a shield lifted by one thread meets a cancel by another: none is lost") {
        run_test({.seeds = {}, .times = 100}, [] {
            cancel_scope outer;
            cancel_scope inner({.shield = true});
            std::thread lifter([&] { inner.set_shield(false); });
            std::thread canceller([&] { outer.cancel(); });
            CHECK_FALSE(outer.run([&] { inner.run([] { sleep_forever(); }); }));
            lifter.join();
            canceller.join();
        });
    }

    TEST_CASE("C18: a shield does not hide the scope's own deadline") {
        run_test([] {
            cancel_scope scope({.deadline = current_time() + 1ms, .shield = true});
            CHECK_FALSE(scope.run([] { sleep_forever(); }));
            CHECK(scope.cancelled_caught());
        });
    }

    TEST_CASE("C19: a shield in one child protects that child only") {
        run_test([] {
            std::atomic<bool> protected_done{false};
            std::atomic<bool> sibling_cut{false};
            bool host_cut = false;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    shielded([&] {
                        sleep(5ms);
                        protected_done = true;
                    });
                });
                group.start_soon([&] {
                    try {
                        sleep_forever();
                    } catch (cancelled const&) {
                        sibling_cut = true;
                        throw;
                    }
                });
                wait_all_tasks_blocked();
                group.cancel();
                host_cut = checkpoint_throws();
            });
            CHECK(protected_done);
            CHECK(sibling_cut);
            CHECK(host_cut);
        });
    }

    TEST_CASE("C20: a deadline cancels when the clock reaches it") {
        run_test([] {
            time_point const deadline = current_time() + 2ms;
            cancel_scope scope({.deadline = deadline});
            CHECK_FALSE(scope.run([] { sleep(1h); }));
            CHECK(current_time() >= deadline);
            CHECK(scope.cancel_called());
        });
    }

    TEST_CASE("C20: a deadline that has passed at entry lets the body run to its first checkpoint") {
        run_test([] {
            cancel_scope scope({.deadline = current_time() - 1s});
            bool begun = false;
            CHECK_FALSE(scope.run([&] {
                CHECK(scope.cancel_called());
                begun = true;
                lowlevel::checkpoint();
            }));
            CHECK(begun);
            cancel_scope no_checkpoint({.deadline = time_point::min()});
            CHECK(no_checkpoint.run([] {}));
            CHECK(no_checkpoint.cancel_called());
            CHECK_FALSE(no_checkpoint.cancelled_caught());
        });
    }

    TEST_CASE("C21: a deadline can be moved while the scope is active") {
        run_test([] {
            for (bool in_time = false; !in_time;) { // again, if the machine is too slow for that
                time_point const before = current_time() + 1ms;
                cancel_scope later({.deadline = before});
                CHECK(later.run([&] {
                    later.set_deadline(current_time() + 1h);
                    in_time = current_time() < before;
                    if (in_time) sleep(3ms);
                }));
                if (in_time) CHECK_FALSE(later.cancel_called());
            }
            cancel_scope sooner({.deadline = current_time() + 1h});
            CHECK_FALSE(sooner.run([&] {
                sooner.set_deadline(current_time() + 1ms);
                sleep_forever();
            }));
        });
    }

    TEST_CASE("C21: a deadline moved into the past cancels at once") {
        run_test([] {
            cancel_scope scope;
            CHECK_FALSE(scope.run([&] {
                scope.set_deadline(current_time() - 1ns);
                CHECK(scope.cancel_called());
                CHECK(checkpoint_throws());
                lowlevel::checkpoint();
            }));
            cancel_scope of_another;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { CHECK_FALSE(of_another.run([] { sleep_forever(); })); });
                wait_all_tasks_blocked();
                of_another.set_deadline(time_point::min());
            });
            CHECK(of_another.cancelled_caught());
        });
    }

    TEST_CASE("C21: a deadline written before entry or after exit is only stored") {
        run_test([] {
            cancel_scope scope;
            scope.set_deadline(current_time() + 1h);
            CHECK(scope.deadline() == scope.deadline());
            CHECK_FALSE(scope.cancel_called());
            time_point const early = current_time() + 1h;
            scope.set_deadline(early);
            CHECK(scope.deadline() == early);
            CHECK(scope.run([] {}));
            scope.set_deadline(time_point::min());
            CHECK(scope.deadline() == time_point::min());
            CHECK_FALSE(scope.cancelled_caught());

            cancel_scope cancelled_one;
            cancelled_one.run([&] {
                cancelled_one.cancel("why");
                cancelled_one.set_deadline(early);
                CHECK(cancelled_one.deadline() == early);
                CHECK(cancelled_one.cancel_reason() == "why");
            });
        });
    }

    TEST_CASE("C22: time_point::max() disables the deadline") {
        run_test([] {
            for (bool in_time = false; !in_time;) { // again, if the machine is too slow for that
                time_point const before = current_time() + 1ms;
                cancel_scope scope({.deadline = before});
                CHECK(scope.run([&] {
                    scope.set_deadline(time_point::max());
                    in_time = current_time() < before;
                    if (in_time) sleep(3ms);
                }));
            }
        });
    }

    TEST_CASE("C23: cancel_called() is true as soon as the deadline has passed") {
        run_test([] {
            cancel_scope not_entered({.deadline = current_time() - 1ns});
            CHECK(not_entered.cancel_called());
            cancel_scope ahead({.deadline = current_time() + 1h});
            CHECK_FALSE(ahead.cancel_called());
        });
        run_test({.seeds = {}}, [] { // the clock goes on although nothing waits
            cancel_scope scope({.deadline = current_time() + 1ms});
            scope.run([&] {
                while (current_time() < scope.deadline()) {}
                CHECK(scope.cancel_called());
                CHECK(current_effective_deadline() == time_point::min()); // C26: the same
            });
        });
    }

    TEST_CASE("C24: a deadline reaches a task that never lets go of its worker") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            CHECK_FALSE(move_on_after(5ms, [] {
                for (;;)
                    lowlevel::checkpoint_if_cancelled();
            }));
        });
    }

    TEST_CASE("C24: a deadline is noticed by calls that complete at once, counted or not") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            for (auto* const call : {detail::enter_blocking_call, detail::check_cancellation}) {
                CHECK_FALSE(move_on_after(5ms, [&] {
                    for (;;)
                        call("a call that completes at once");
                }));
                CHECK_FALSE(move_on_after(5ms, [&] { // nor can it yield
                    no_suspend const guard;
                    for (;;)
                        call("a call that completes at once");
                }));
            }
        });
    }

    TEST_CASE("C24: a deadline is noticed although each yield begins the budget anew") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            CHECK_FALSE(move_on_after(5ms, [] {
                for (;;) {
                    lowlevel::cancel_shielded_checkpoint();
                    detail::enter_blocking_call("a call that completes at once");
                }
            }));
            CHECK_FALSE(move_on_after(5ms, [] {
                for (;;) {
                    { blocking_region const region; }
                    detail::enter_blocking_call("a call that completes at once");
                }
            }));
        });
    }

    TEST_CASE("C24: a deadline is noticed by a task that computes between calls, long before its budget ends") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            auto const compute = [] {
                for (time_point const until = current_time() + 5ms; current_time() < until;) {}
            };
            for (auto* const call : {detail::enter_blocking_call, detail::check_cancellation}) {
                int calls = 0;
                CHECK_FALSE(move_on_after(5ms, [&] {
                    for (; calls < 100; ++calls) { // fewer than a budget has
                        compute();
                        call("a call that completes at once");
                    }
                }));
                CHECK(calls < 100);
            }
        });
    }

    TEST_CASE("C24: a deadline that has passed ends the next call that counts for nothing, the first in its scope") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            cancel_scope scope({.deadline = current_time() + 1ms});
            bool came_through = false;
            scope.run([&] {
                while (current_time() < scope.deadline()) {}
                lowlevel::checkpoint_if_cancelled();
                came_through = true;
            });
            CHECK(scope.cancelled_caught());
            CHECK_FALSE(came_through);
        });
    }

    TEST_CASE("C24: a timer that fires while its scope is left or moved does no harm") {
        run_test({.seeds = {0, 1}, .times = 5}, [] {
            with_task_group([](task_group& group) {
                for (int task = 0; task < 8; ++task)
                    group.start_soon([task] {
                        for (int time = 0; time < 50; ++time) {
                            cancel_scope scope(
                                {.deadline = current_time() + std::chrono::microseconds(task * 10)});
                            bool const finished = scope.run([&] {
                                lowlevel::checkpoint();
                                if (task % 2 == 0) scope.set_deadline(current_time() + 20us);
                                lowlevel::checkpoint();
                            });
                            CHECK(finished == !scope.cancelled_caught());
                            lowlevel::checkpoint(); // nothing of the dead scope comes here
                        }
                    });
            });
        });
    }

    TEST_CASE("C26: current_effective_deadline() walks to the first shield") {
        CHECK(current_effective_deadline() == time_point::max());
        run_test([] {
            CHECK(current_effective_deadline() == time_point::max());
            time_point const now = current_time();
            cancel_scope outer({.deadline = now + 1h});
            cancel_scope inner({.deadline = now + 2h});
            outer.run([&] {
                inner.run([&] {
                    CHECK(current_effective_deadline() == now + 1h);
                    inner.set_shield(true);
                    CHECK(current_effective_deadline() == now + 2h);
                    outer.cancel();
                    CHECK(current_effective_deadline() == now + 2h);
                    inner.set_shield(false);
                    CHECK(current_effective_deadline() == time_point::min());
                    inner.set_shield(true);
                    inner.set_deadline(time_point::max());
                    CHECK(current_effective_deadline() == time_point::max());
                    inner.cancel();
                    CHECK(current_effective_deadline() == time_point::min());
                });
            });
            CHECK(current_effective_deadline() == time_point::max());
        });
    }

    TEST_CASE("C26: a child's effective deadline includes those around its group") {
        run_test([] {
            time_point const deadline = current_time() + 1h;
            move_on_at(deadline, [&] {
                with_task_group([&](task_group& group) {
                    group.start_soon([&] { CHECK(current_effective_deadline() == deadline); });
                });
            });
        });
    }

    TEST_CASE("C27: an outer deadline bounds what is inside") {
        run_test([] {
            cancel_scope outer({.deadline = current_time() + 1ms});
            cancel_scope inner({.deadline = current_time() + 1h});
            CHECK_FALSE(outer.run([&] { inner.run([] { sleep_forever(); }); }));
            CHECK_FALSE(inner.cancel_called());
        });
    }

    TEST_CASE("C17: a shield that is lifted while the scope is being entered keeps nothing out") {
        run({.workers = 2}, [] {
            std::vector<std::optional<cancel_scope>> shields(times);
            for (auto& each : shields)
                each.emplace(cancel_scope_options{.shield = true});
            std::atomic<int> turn = -1;
            std::thread lifter([&] {
                for (int time = 0; time < times; ++time) {
                    while (turn < time) std::this_thread::yield();
                    shields[time]->set_shield(false);
                }
            });
            auto const limit = std::chrono::steady_clock::now() + time_for_attempts;
            for (int time = 0; time < times && std::chrono::steady_clock::now() < limit; ++time) {
                cancel_scope around;
                around.cancel();
                around.run([&] {
                    turn = time;
                    shields[time]->run([] { sleep_forever(); });
                    FAIL("nothing is in the way of the outer cancellation");
                });
                CHECK(around.cancelled_caught());
            }
            turn = times; // those that are left, too, which nobody enters
            lifter.join();
        });
    }

    TEST_CASE("C21: a deadline that is set while the scope is being entered is kept") {
        run({.workers = 2}, [] {
            std::vector<cancel_scope> scopes(times);
            std::atomic<int> turn = -1;
            std::thread setter([&] {
                for (int time = 0; time < times; ++time) {
                    while (turn < time) std::this_thread::yield();
                    scopes[time].set_deadline(clock::now() + (time % 2 == 0 ? 0ms : 1ms));
                }
            });
            auto const limit = std::chrono::steady_clock::now() + time_for_attempts;
            for (int time = 0; time < times && std::chrono::steady_clock::now() < limit; ++time) {
                turn = time;
                CHECK_FALSE(scopes[time].run([] { sleep_forever(); }));
            }
            turn = times; // as above
            setter.join();
        });
    }

    TEST_CASE("C23: whether a deadline has passed is a matter of the run's clock, whoever asks") {
        run({.backend = "sim"}, [] {
            cancel_scope scope({.deadline = clock::now() + 1s});
            scope.run([&] {
                CHECK_FALSE(scope.cancel_called());
                bool seen_by_thread = true;
                std::thread([&] { seen_by_thread = scope.cancel_called(); }).join();
                CHECK_FALSE(seen_by_thread);
            });
        });
    }
}
