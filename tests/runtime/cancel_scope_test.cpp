#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <type_traits>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

struct ordinary : std::runtime_error {
    ordinary() : std::runtime_error("ordinary") {}
};

bool checkpoint_throws() {
    try {
        lowlevel::checkpoint();
        return false;
    } catch (cancelled const&) { // the test asks just this
        return true;
    }
}

} // namespace

TEST_SUITE("runtime.cancel_scope") {
    TEST_CASE("C1: a new scope is not cancelled, has no deadline and no shield, and needs no task") {
        cancel_scope scope;
        CHECK_FALSE(scope.cancel_called());
        CHECK_FALSE(scope.cancelled_caught());
        CHECK_FALSE(scope.shield());
        CHECK(scope.deadline() == time_point::max());
        CHECK(scope.cancel_reason().empty());
        cancel_scope other({.deadline = time_point(5ns), .shield = true});
        CHECK(other.shield());
        CHECK(other.deadline() == time_point(5ns));
        CHECK_THROWS_AS(scope.run([] {}), no_event_loop_error);
    }

    TEST_CASE("C2: the first reason sticks") {
        cancel_scope scope;
        scope.cancel("first");
        scope.cancel("second");
        CHECK(scope.cancel_called());
        CHECK(scope.cancel_reason() == "first");
    }

    TEST_CASE("C2: a scope is cancelled by its own task, by another task and by an OS thread") {
        run_test([] {
            cancel_scope own;
            CHECK_FALSE(own.run([&] {
                own.cancel();
                lowlevel::checkpoint();
            }));
            cancel_scope by_task;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { by_task.cancel(); });
                CHECK_FALSE(by_task.run([] { sleep_forever(); }));
            });
            cancel_scope by_thread;
            std::thread canceller([&] { by_thread.cancel(); });
            CHECK_FALSE(by_thread.run([] { sleep_forever(); }));
            canceller.join();
        });
    }

    TEST_CASE("C2: after exit cancel() only sets the flag") {
        run_test([] {
            cancel_scope scope;
            CHECK(scope.run([] { lowlevel::checkpoint(); }));
            scope.cancel();
            CHECK(scope.cancel_called());
            CHECK_FALSE(scope.cancelled_caught());
            lowlevel::checkpoint();
        });
    }

    TEST_CASE("C3: cancel() does not throw in its caller, the next checkpoint does") {
        run_test([] {
            bool after_cancel = false;
            bool after_checkpoint = false;
            cancel_scope scope;
            scope.run([&] {
                scope.cancel();
                after_cancel = true;
                lowlevel::checkpoint();
                after_checkpoint = true;
            });
            CHECK(after_cancel);
            CHECK_FALSE(after_checkpoint);
        });
    }

    TEST_CASE("C4: a scope that was cancelled before it is entered cuts its body at the first checkpoint") {
        run_test([] {
            cancel_scope scope;
            scope.cancel();
            bool begun = false;
            CHECK_FALSE(scope.run([&] {
                begun = true;
                lowlevel::checkpoint();
                check(false, "not reached");
            }));
            CHECK(begun);
            CHECK(scope.cancelled_caught());
        });
    }

    TEST_CASE("C5: nothing un-cancels a scope") {
        run_test([] {
            cancel_scope scope;
            scope.run([&] {
                scope.cancel();
                scope.set_deadline(time_point::max());
                scope.set_shield(true);
                CHECK(scope.cancel_called());
                CHECK(checkpoint_throws());
            });
            cancel_scope timed({.deadline = current_time() - 1s});
            timed.run([&] {
                timed.set_deadline(time_point::max());
                CHECK(timed.cancel_called());
                CHECK(checkpoint_throws());
            });
        });
    }

    TEST_CASE("C6: a shield keeps out what is around it, but not the scope's own cancellation") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner({.shield = true});
            outer.run([&] {
                inner.run([&] {
                    outer.cancel();
                    CHECK_FALSE(checkpoint_throws());
                    inner.cancel();
                    CHECK(checkpoint_throws());
                });
                CHECK(checkpoint_throws());
            });
        });
    }

    TEST_CASE("C7: every checkpoint throws again while the scope is cancelled") {
        run_test([] {
            cancel_scope scope;
            CHECK_FALSE(scope.run([&] {
                scope.cancel();
                for (int time = 0; time < 3; ++time)
                    CHECK(checkpoint_throws()); // swallowed
                try {
                    sleep(1h);
                } catch (cancelled const&) {
                    CHECK(checkpoint_throws()); // in a handler
                    throw;
                }
            }));
        });
    }

    TEST_CASE("C7: every kind of cancellation point throws in a cancelled scope") {
        run_test([] {
            cancel_scope scope;
            scope.run([&] {
                scope.cancel();
                check_throws<cancelled>([] { lowlevel::checkpoint(); }, "checkpoint");
                check_throws<cancelled>([] { lowlevel::checkpoint_if_cancelled(); },
                                        "checkpoint_if_cancelled");
                check_throws<cancelled>([] { sleep(0ns); }, "sleep(0)");
                check_throws<cancelled>([] { sleep(1ns); }, "sleep(1ns)");
                check_throws<cancelled>([] { sleep_until(time_point::min()); }, "sleep_until, past");
                check_throws<cancelled>([] { sleep_until(time_point::max()); }, "sleep_until, never");
                check_throws<cancelled>([] { sleep_forever(); }, "sleep_forever");
                check_throws<cancelled>([] { wait_all_tasks_blocked(); }, "wait_all_tasks_blocked");
                lowlevel::cancel_shielded_checkpoint();
            });
        });
    }

    TEST_CASE("C8: a child stands in the scopes around its group, not in those its host is in") {
        run_test([] {
            cancel_scope outer;
            std::atomic<bool> child_cut{false};
            outer.run([&] {
                with_task_group([&](task_group& group) {
                    cancel_scope inner;
                    inner.run([&] {
                        group.start_soon([&] {
                            inner.cancel();
                            CHECK_FALSE(checkpoint_throws());
                        });
                        sleep_forever();
                    });
                    shielded([&] {
                        group.start_soon([&] {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) {
                                child_cut = true;
                                throw;
                            }
                        });
                        wait_all_tasks_blocked();
                        outer.cancel();
                        lowlevel::checkpoint();
                    });
                });
            });
            CHECK(child_cut);
        });
    }

    TEST_CASE("C9: cancelling the outer scope leaves the inner one's own state alone") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner;
            CHECK_FALSE(outer.run([&] {
                inner.run([&] {
                    outer.cancel();
                    CHECK(checkpoint_throws());
                    lowlevel::checkpoint();
                });
                check(false, "not reached");
            }));
            CHECK_FALSE(inner.cancel_called());
            CHECK_FALSE(inner.cancelled_caught());
            CHECK(outer.cancelled_caught());
        });
    }

    TEST_CASE("C10: a scope swallows its own cancellation and says so") {
        run_test([] {
            cancel_scope scope;
            scope.run([&] {
                scope.cancel();
                lowlevel::checkpoint();
            });
            CHECK(scope.cancelled_caught());
            cancel_scope with_value;
            CHECK_FALSE(with_value.run([&] {
                with_value.cancel();
                lowlevel::checkpoint();
                return 1;
            }).has_value());
        });
    }

    TEST_CASE("C10: a body that meets no checkpoint ends normally, caught stays false") {
        run_test([] {
            cancel_scope scope;
            CHECK(scope.run([&] { scope.cancel(); }));
            CHECK(scope.cancel_called());
            CHECK_FALSE(scope.cancelled_caught());
            cancel_scope with_value;
            CHECK(with_value.run([&] {
                with_value.cancel();
                return 5;
            }) == 5);
        });
    }

    TEST_CASE("C10: other exceptions pass through a cancelled scope") {
        run_test([] {
            cancel_scope scope;
            check_throws<ordinary>(
                [&] {
                    scope.run([&] {
                        scope.cancel();
                        throw ordinary();
                    });
                },
                "the body's error");
            CHECK_FALSE(scope.cancelled_caught());
        });
    }

    TEST_CASE("C10: of a group the cancellations go, and the rest keeps its structure") {
        run_test([] {
            auto const grab_cancellation = [] {
                try {
                    lowlevel::checkpoint();
                } catch (cancelled const&) {
                    return std::current_exception();
                }
                return std::exception_ptr();
            };
            cancel_scope scope;
            bool passed = false;
            try {
                scope.run([&] {
                    scope.cancel();
                    auto const cancellation = grab_cancellation();
                    auto const error = std::make_exception_ptr(ordinary());
                    auto const inner = std::make_exception_ptr(
                        exception_group("inner", {cancellation, error}));
                    auto const only_cancelled =
                        std::make_exception_ptr(exception_group("gone", {cancellation}));
                    throw exception_group("outer", {cancellation, inner, only_cancelled});
                });
            } catch (exception_group const& rest) {
                passed = true;
                check(rest.message() == "outer", "the outer message");
                check(rest.exceptions().size() == 1, "one member is left");
                check(!rest.contains<cancelled>(), "no cancellation is left");
                check(rest.contains<ordinary>(), "the error is left");
                try {
                    std::rethrow_exception(rest.exceptions()[0]);
                } catch (exception_group const& inner) {
                    check(inner.message() == "inner", "the inner message");
                }
            }
            CHECK(passed);
            CHECK(scope.cancelled_caught());

            cancel_scope all_of_it;
            CHECK_FALSE(all_of_it.run([&] {
                all_of_it.cancel();
                throw exception_group("outer", {grab_cancellation()});
            }));
            CHECK(all_of_it.cancelled_caught());

            cancel_scope nothing_of_it;
            check_throws<exception_group>(
                [&] {
                    nothing_of_it.run([&] {
                        nothing_of_it.cancel();
                        throw exception_group("errors", {std::make_exception_ptr(ordinary())});
                    });
                },
                "a group without cancellations");
            CHECK_FALSE(nothing_of_it.cancelled_caught());
        });
    }

    TEST_CASE("C10: a group passes unchanged where an outer cancellation is visible") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner;
            bool seen = false;
            check_throws<exception_group>(
                [&] {
                    outer.run([&] {
                        try {
                            inner.run([&] {
                                inner.cancel();
                                outer.cancel();
                                try {
                                    lowlevel::checkpoint();
                                } catch (cancelled const&) {
                                    throw exception_group(
                                        "both", {std::current_exception(),
                                                 std::make_exception_ptr(ordinary())});
                                }
                            });
                        } catch (exception_group const& group) {
                            seen = group.contains<cancelled>();
                            throw;
                        }
                    });
                },
                "the error");
            CHECK(seen);
            CHECK_FALSE(inner.cancelled_caught());
            CHECK(outer.cancelled_caught());
        });
    }

    TEST_CASE("C11: of two cancelled scopes the outermost visible one catches") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner;
            bool between = false;
            outer.run([&] {
                inner.run([&] {
                    inner.cancel();
                    outer.cancel();
                    lowlevel::checkpoint();
                });
                between = true;
            });
            CHECK_FALSE(between);
            CHECK_FALSE(inner.cancelled_caught());
            CHECK(outer.cancelled_caught());
        });
    }

    TEST_CASE("C12: a shield raised during unwinding does not make an uncancelled scope swallow") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner;
            outer.run([&] {
                inner.run([&] {
                    outer.cancel();
                    try {
                        lowlevel::checkpoint();
                    } catch (cancelled const&) {
                        inner.set_shield(true);
                        throw;
                    }
                });
                check(false, "not reached");
            });
            CHECK_FALSE(inner.cancelled_caught());
            CHECK(outer.cancelled_caught());
        });
    }

    TEST_CASE("C12: shielded and both cancelled: the inner scope catches, then the outer one throws again") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner({.shield = true});
            bool between = false;
            outer.run([&] {
                inner.run([&] {
                    inner.cancel();
                    outer.cancel();
                    lowlevel::checkpoint();
                });
                between = true;
                lowlevel::checkpoint();
                check(false, "not reached");
            });
            CHECK(between);
            CHECK(inner.cancelled_caught());
            CHECK(outer.cancelled_caught());
        });
    }

    TEST_CASE("C13: a scope is entered once") {
        run_test([] {
            cancel_scope scope;
            scope.run([&] {
                check_throws<std::logic_error>([&] { scope.run([] {}); }, "while it is active");
                lowlevel::checkpoint();
            });
            check_throws<std::logic_error>([&] { scope.run([] {}); }, "after it was left");
            lowlevel::checkpoint();
        });
    }

    TEST_CASE("C16, C40: a scope can neither be copied nor moved out of its place") {
        static_assert(!std::is_copy_constructible_v<cancel_scope>);
        static_assert(!std::is_move_constructible_v<cancel_scope>);
        static_assert(!std::is_copy_assignable_v<cancel_scope>);
        static_assert(!std::is_move_assignable_v<cancel_scope>);
    }

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
            cancel_scope later({.deadline = current_time() + 1ms});
            CHECK(later.run([&] {
                later.set_deadline(current_time() + 1h);
                sleep(3ms);
            }));
            CHECK_FALSE(later.cancel_called());
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
            cancel_scope scope({.deadline = current_time() + 1ms});
            CHECK(scope.run([&] {
                scope.set_deadline(time_point::max());
                sleep(3ms);
            }));
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

    TEST_CASE("C28: a cancellation reaches the tasks of groups inside, at any depth, but no shield") {
        run_test([] {
            std::atomic<int> cut{0};
            std::atomic<bool> kept{false};
            auto const waits = [&] {
                try {
                    sleep_forever();
                } catch (cancelled const&) {
                    ++cut;
                    throw;
                }
            };
            cancel_scope scope;
            with_task_group([&](task_group& outside) {
                outside.start_soon([&] {
                    scope.run([&] {
                        with_task_group([&](task_group& group) {
                            group.start_soon(waits);
                            group.start_soon([&] {
                                with_task_group([&](task_group& inner) {
                                    inner.start_soon(waits);
                                    inner.start_soon(waits);
                                });
                            });
                            group.start_soon([&] {
                                shielded([&] {
                                    with_task_group([&](task_group& inner) {
                                        inner.start_soon([&] {
                                            sleep(2ms);
                                            kept = true;
                                        });
                                    });
                                });
                            });
                        });
                    });
                });
                wait_all_tasks_blocked();
                scope.cancel();
            });
            CHECK(cut == 3);
            CHECK(kept);
        });
    }

    TEST_CASE("C29: a task whose scope is cancelled before it starts still runs to its first checkpoint") {
        run_test([] {
            std::atomic<int> begun{0};
            std::atomic<int> went_on{0};
            with_task_group([&](task_group& group) {
                group.cancel();
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&] {
                        ++begun;
                        lowlevel::checkpoint();
                        ++went_on;
                    });
            });
            CHECK(begun == 10);
            CHECK(went_on == 0);
        });
    }

    TEST_CASE("C31: after cancel() returned, the waiters are gone for other wakers") {
        run_test({.times = 20}, [] {
            detail::wait_queue queue;
            std::atomic<int> cut{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 3; ++task)
                    group.start_soon([&] {
                        detail::parking wait("test");
                        detail::wait_node node(wait);
                        queue.lock();
                        queue.waiters.push_back(node);
                        queue.unlock();
                        detail::wake_reason const why = wait.suspend();
                        queue.leave(node);
                        if (why == detail::wake_reason::cancelled) ++cut;
                    });
                wait_all_tasks_blocked();
                group.cancel();
                queue.lock();
                detail::wait_node* const winner = queue.claim_front();
                queue.unlock();
                CHECK(winner == nullptr);
            });
            CHECK(cut == 3);
        });
    }

    TEST_CASE("C32: after an inner scope consumed its cancellation the outer one still throws") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner({.shield = true});
            bool thrown_again = false;
            outer.run([&] {
                outer.cancel();
                inner.run([&] { CHECK_FALSE(checkpoint_throws()); });
                thrown_again = checkpoint_throws();
            });
            CHECK(thrown_again);

            cancel_scope around;
            std::atomic<bool> again{false};
            with_task_group([&](task_group& group) { // the same for a cancellation from elsewhere
                group.start_soon([&] {
                    around.run([&] {
                        cancel_scope own({.shield = true});
                        own.run([&] {
                            around.cancel();
                            own.cancel();
                            sleep_forever();
                        });
                        again = checkpoint_throws();
                    });
                });
            });
            CHECK(again);
        });
    }

    TEST_CASE("C33: a scope that is not cancelled leaves a foreign cancellation alone") {
        run_test([] {
            std::exception_ptr foreign;
            cancel_scope first;
            first.run([&] {
                first.cancel();
                try {
                    lowlevel::checkpoint();
                } catch (cancelled const&) {
                    foreign = std::current_exception();
                }
            });
            cancel_scope second;
            check_throws<cancelled>([&] { second.run([&] { std::rethrow_exception(foreign); }); },
                                    "the foreign cancellation");
            CHECK_FALSE(second.cancelled_caught());
            cancel_scope third; // the scope's state decides, not whose cancellation it is
            CHECK_FALSE(third.run([&] {
                third.cancel();
                std::rethrow_exception(foreign);
            }));
            CHECK(third.cancelled_caught());
        });
    }

    TEST_CASE("C34: pending_cancellation is what the next checkpoint would do") {
        run_test([] {
            cancel_scope outer;
            outer.run([&] {
                CHECK_FALSE(get_current_task().pending_cancellation);
                outer.cancel();
                CHECK(get_current_task().pending_cancellation);
                shielded([] { CHECK_FALSE(get_current_task().pending_cancellation); });
                CHECK(get_current_task().pending_cancellation);
            });
            CHECK_FALSE(get_current_task().pending_cancellation);
        });
    }

    TEST_CASE("C35: the exception says why, and by whom") {
        run_test([] {
            auto const reason_in = [](cancel_scope& scope) {
                std::string reason;
                scope.run([&] {
                    try {
                        sleep_forever();
                    } catch (cancelled const& cancellation) {
                        reason = cancellation.reason();
                        throw;
                    }
                });
                return reason;
            };
            cancel_scope given;
            with_task_group([&](task_group& group) {
                group.start_soon({.name = "the canceller"}, [&] { given.cancel("out of patience"); });
                std::string const reason = reason_in(given);
                CHECK(reason.find("out of patience") != std::string::npos);
                CHECK(reason.find("the canceller") != std::string::npos);
            });
            cancel_scope timed({.deadline = current_time() + 1ms});
            CHECK(reason_in(timed).find("deadline") != std::string::npos);
        });
    }

    TEST_CASE("C36: an error thrown while a cancellation is handled replaces it") {
        run_test([] {
            cancel_scope scope;
            check_throws<ordinary>(
                [&] {
                    scope.run([&] {
                        scope.cancel();
                        try {
                            lowlevel::checkpoint();
                        } catch (cancelled const&) { // replaced
                            throw ordinary();
                        }
                    });
                },
                "the error of the handler");
            CHECK_FALSE(scope.cancelled_caught());
        });
    }

    TEST_CASE("C37: a scope entered while its parent is being cancelled is cancelled, too") {
        run_test({.seeds = {0, 1}, .times = 100}, [] {
            cancel_scope outer;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { outer.cancel(); });
                group.start_soon([&] {
                    CHECK_FALSE(outer.run([] {
                        for (;;) { // enters and leaves scopes all the time
                            cancel_scope inner;
                            inner.run([] {
                                cancel_scope innermost;
                                innermost.run([] { lowlevel::cancel_shielded_checkpoint(); });
                            });
                            with_task_group([](task_group& children) {
                                children.start_soon([] { lowlevel::checkpoint(); });
                            });
                            lowlevel::checkpoint_if_cancelled();
                        }
                    }));
                });
            });
        });
    }

    TEST_CASE("C38: a scope that is left while somebody cancels it either caught it or did not") {
        run_test({.seeds = {0, 1, 2}, .times = 100}, [] {
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { scope.cancel(); });
                bool const finished = scope.run([] {
                    lowlevel::cancel_shielded_checkpoint();
                    lowlevel::checkpoint();
                });
                CHECK(finished != scope.cancelled_caught());
            });
            CHECK(scope.cancel_called());
            lowlevel::checkpoint();
        });
    }

    TEST_CASE("M3, M16: an event and a cancellation at the same moment: one of them wins, nothing is lost") {
        run_test({.times = 100}, [] {
            gate opened;
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { opened.open(); });
                group.start_soon([&] { scope.cancel(); });
                bool const finished = scope.run([&] { opened.wait(); });
                CHECK(finished != scope.cancelled_caught());
            });
        });
    }

    TEST_CASE("M3: an event that came first beats a later cancellation") {
        run_test([] {
            gate opened;
            cancel_scope scope;
            bool got_it = false;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    scope.run([&] {
                        opened.wait();
                        got_it = true;
                        lowlevel::checkpoint();
                        check(false, "not reached");
                    });
                });
                wait_all_tasks_blocked();
                opened.open();
                scope.cancel();
            });
            CHECK(got_it);
            CHECK(scope.cancelled_caught());
        });
    }
}
