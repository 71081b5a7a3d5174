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

    TEST_CASE("C5, C23: a deadline that has passed unnoticed cannot be moved any more") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            for (bool const has_timer : {false, true})
                for (time_point const later : {time_point::max(), current_time() + 1h}) {
                    cancel_scope scope({.deadline = current_time() + 1ms});
                    scope.run([&] {
                        if (has_timer) lowlevel::checkpoint();
                        while (current_time() < scope.deadline()) {}
                        scope.set_deadline(later);
                        CHECK(scope.cancel_called());
                        CHECK(checkpoint_throws());
                        CHECK(scope.deadline() == later);
                        lowlevel::checkpoint();
                    });
                    CHECK(scope.cancelled_caught());
                }
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

    namespace {
    template <class Scope>
    concept entered_by_hand = requires(Scope& scope) {
        scope.enter();
    };
    template <class Scope>
    concept left_by_hand = requires(Scope& scope) {
        scope.leave();
    };
    } // namespace

    TEST_CASE("M10, C14, C15: a scope catches in its run(), which is the only way in and out") {
        static_assert(!entered_by_hand<cancel_scope>);
        static_assert(!left_by_hand<cancel_scope>);
        run_test([] {
            cancel_scope scope;
            int passed = 0;
            bool after_run = false;
            bool const through = scope.run([&] {
                struct guard {
                    int& passed;
                    ~guard() { ++passed; }
                } const here{passed};
                scope.cancel();
                try {
                    lowlevel::checkpoint();
                } catch (std::exception const&) {
                    check(false, "handlers of ordinary errors do not see it");
                }
                check(false, "nothing between the checkpoint and run() catches it");
            });
            after_run = true;
            check(!through && scope.cancelled_caught() && passed == 1,
                  "run() did, after the unwinding");
            check(after_run, "and the code after it goes on");
            lowlevel::checkpoint();
        });
        // Another task cannot leave it, only fail to enter it.
        run_test([] {
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { scope.run([] { sleep_forever(); }); });
                wait_all_tasks_blocked();
                check_throws<std::logic_error>([&] { scope.run([] {}); }, "another task");
                group.cancel();
            });
        });
    }

    TEST_CASE("C1: a result whose move throws leaves the scope once, with that exception") {
        struct moody {
            explicit moody(int moves) : moves_left(moves) {}
            moody(moody&& other) : moves_left(other.moves_left - 1) {
                if (moves_left < 0) throw ordinary();
            }
            int moves_left;
        };
        run_test([] {
            for (int moves = 0; moves < 4; ++moves) {
                bool threw = false;
                try {
                    cancel_scope scope;
                    auto const outcome = scope.run([&] { return moody(moves); });
                    CHECK(outcome.has_value());
                } catch (ordinary const&) {
                    threw = true;
                }
#if defined(__clang__)
                constexpr int needed = 2; // it does not build what run() gives in its place
#else
                constexpr int needed = 1; // into the result
#endif
                CHECK(threw == (moves < needed));
                CHECK_FALSE(checkpoint_throws());
            }
        });
    }
}
