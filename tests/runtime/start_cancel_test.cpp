#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <optional>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {
struct ordinary : std::runtime_error {
    explicit ordinary(int which = 0) : std::runtime_error("ordinary"), number(which) {}
    int number;
};
} // namespace

TEST_SUITE("runtime.start_cancel") {
    TEST_CASE("S1: start in a cancelled scope still starts the child, which runs to its first checkpoint") {
        run_test([] {
            std::atomic<bool> begun{false};
            std::atomic<bool> went_on{false};
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                CHECK_FALSE(scope.run([&] {
                    scope.cancel();
                    group.start([&](task_status<>& status) {
                        begun = true;
                        lowlevel::checkpoint();
                        went_on = true;
                        status.started();
                    });
                    check(false, "not reached");
                }));
                CHECK_FALSE(group.cancel_scope().cancel_called());
            });
            CHECK(begun);
            CHECK_FALSE(went_on);
        });
    }

    TEST_CASE("S1, S10: a start in a cancelled scope is cancelled, also by a child that meets no checkpoint") {
        run_test([] {
            cancel_scope scope;
            std::atomic<bool> ended{false};
            with_task_group([&](task_group& group) {
                CHECK_FALSE(scope.run([&] {
                    scope.cancel();
                    group.start<int>([&](task_status<int>& status) {
                        status.started(3);
                        ended = true;
                    });
                    check(false, "not reached");
                }));
                CHECK(ended);
            });
        });
    }

    TEST_CASE("S3, S9: the caller's cancellation reaches the child, start waits for it, the group is unharmed") {
        run_test([] {
            std::atomic<bool> child_cut{false};
            std::atomic<bool> cleaned_up{false};
            cancel_scope scope;
            task_group group;
            group.run([&] {
                group.start_soon([&] {
                    CHECK_FALSE(scope.run([&] {
                        group.start([&](task_status<>&) {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) {
                                child_cut = true;
                                shielded([] { weft::sleep(1ms); });
                                cleaned_up = true;
                                throw;
                            }
                        });
                    }));
                    CHECK(cleaned_up);
                });
                wait_all_tasks_blocked();
                scope.cancel();
            });
            CHECK(child_cut);
            CHECK_FALSE(group.cancel_scope().cancel_called());
        });
    }

    TEST_CASE("S4: a child that arrives in a cancelled group is cancelled; start gives the value") {
        run_test([] {
            std::optional<int> value;
            std::atomic<bool> cut{false};
            task_group group;
            gate entered, leave;
            with_task_group([&](task_group& outer) {
                outer.start_soon([&] {
                    group.run([&] {
                        entered.open();
                        shielded([&] { leave.wait(); });
                    });
                });
                entered.wait();
                group.cancel();
                value = group.start<int>([&](task_status<int>& status) {
                    lowlevel::checkpoint(); // S12: not cancelled yet
                    status.started(8);
                    try {
                        lowlevel::checkpoint();
                    } catch (cancelled const&) {
                        cut = true;
                        throw;
                    }
                });
                leave.open();
            });
            CHECK(value == 8);
            CHECK(cut);
        });
    }

    TEST_CASE("S9: a child that ends by the caller's cancellation before the caller wakes: start is cancelled") {
        run_test({.times = 20}, [] {
            task_group group;
            group.run([&] {
                cancel_scope scope;
                bool const finished = scope.run([&] {
                    group.start([&](task_status<>&) {
                        scope.cancel();
                        lowlevel::checkpoint();
                    });
                });
                check(!finished && scope.cancelled_caught(), "by its own scope");
            });
            CHECK_FALSE(group.cancel_scope().cancel_called());
        });
    }

    TEST_CASE("S9: a child that is told first and ends without a word does not hide the caller's cancellation") {
        run_test({.times = 20}, [] {
            for (bool const late : {false, true}) {
                std::atomic<bool> was_cancelled{false};
                with_task_group([&](task_group& group) {
                    move_on_after(100us, [&] {
                        try {
                            group.start([&](task_status<>&) {
                                try {
                                    sleep_forever();
                                } catch (cancelled const&) { // swallowed: it just ends
                                    if (late) shielded([] { weft::sleep(100us); });
                                }
                            });
                        } catch (cancelled const&) {
                            was_cancelled = true;
                            throw;
                        }
                    });
                });
                check(was_cancelled, "cancelled, not: ended without calling started()");
            }
        });
    }

    TEST_CASE("S9: an error of the child's clean-up leaves from the cancelled start") {
        run_test([] {
            cancel_scope scope;
            bool got_error = false;
            task_group group;
            group.run([&] {
                group.start_soon([&] {
                    try {
                        scope.run([&] {
                            group.start([](task_status<>&) {
                                try {
                                    sleep_forever();
                                } catch (cancelled const&) { // replaced
                                    throw ordinary(6);
                                }
                            });
                        });
                    } catch (ordinary const& error) {
                        got_error = error.number == 6;
                    }
                });
                wait_all_tasks_blocked();
                scope.cancel();
            });
            CHECK(got_error);
            CHECK_FALSE(group.cancel_scope().cancel_called());
        });
    }

    TEST_CASE("S10: started() after start was cancelled returns quietly, and the child stays cancelled") {
        run_test([] {
            cancel_scope scope;
            gate go;
            std::atomic<bool> quiet{false};
            std::atomic<bool> cut{false};
            task_group group;
            group.run([&] {
                group.start_soon([&] {
                    CHECK_FALSE(scope.run([&] {
                        group.start([&](task_status<>& status) {
                            shielded([&] { go.wait(); });
                            status.started();
                            quiet = true;
                            try {
                                lowlevel::checkpoint();
                            } catch (cancelled const&) {
                                cut = true;
                                throw;
                            }
                        });
                    }));
                });
                wait_all_tasks_blocked();
                scope.cancel();
                wait_all_tasks_blocked(); // start() has seen it
                go.open();
            });
            CHECK(quiet);
            CHECK(cut);
            CHECK_FALSE(group.cancel_scope().cancel_called());
        });
    }

    TEST_CASE("S10: a start() that was cancelled is not won back by a child that runs before its caller does") {
        run_test({.times = 20}, [] {
            cancel_scope scope;
            std::atomic<bool> cut{false};
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    CHECK_FALSE(scope.run([&] {
                        group.start([&](task_status<>& status) {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) {
                                status.started();
                                try {
                                    lowlevel::checkpoint();
                                } catch (cancelled const&) {
                                    cut = true;
                                }
                                throw;
                            }
                        });
                        check(false, "not reached");
                    }));
                });
                wait_all_tasks_blocked();
                scope.cancel();
            });
            CHECK(cut);
        });
    }

    TEST_CASE("S9: a start() that was cancelled ends its child, also if a shield goes up again") {
        run_test({.times = 20}, [] {
            cancel_scope outer;
            cancel_scope inner({.shield = true});
            gate go;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    CHECK_FALSE(outer.run([&] {
                        inner.run([&] {
                            group.start([&](task_status<>&) {
                                go.wait();
                                for (;;)
                                    lowlevel::checkpoint(); // it is ready, and sees what is then
                            });
                        });
                    }));
                });
                wait_all_tasks_blocked();
                go.open();
                lowlevel::checkpoint();
                outer.cancel();
                inner.set_shield(false);
                inner.set_shield(true);
            });
        });
    }

    TEST_CASE("S3: a scope that is entered while an exception is in flight holds for the child of a start(), too") {
        run_test([] {
            with_task_group([](task_group& group) {
                bool finished = true;
                struct starts_at_its_end {
                    task_group& group;
                    bool& finished;
                    ~starts_at_its_end() {
                        finished = move_on_after(1ms, [this] {
                            group.start([](task_status<>&) { sleep_forever(); });
                        });
                    }
                };
                try {
                    starts_at_its_end const last{group, finished};
                    throw ordinary();
                } catch (ordinary const&) {
                }
                CHECK_FALSE(finished);
            });
        });
    }

    TEST_CASE("S12: a cancellation of the destination does not reach the child before started()") {
        run_test([] {
            std::atomic<bool> undisturbed{false};
            task_group group;
            gate entered, leave, cancelled_now;
            with_task_group([&](task_group& outer) {
                outer.start_soon([&] {
                    group.run([&] {
                        entered.open();
                        shielded([&] { leave.wait(); });
                    });
                });
                entered.wait();
                outer.start_soon([&] {
                    wait_all_tasks_blocked();
                    group.cancel();
                    cancelled_now.open();
                });
                group.start([&](task_status<>& status) {
                    cancelled_now.wait();
                    lowlevel::checkpoint();
                    undisturbed = true;
                    status.started();
                });
                leave.open();
            });
            CHECK(undisturbed);
        });
    }

    TEST_CASE("S16: started() and the caller's cancellation: one of them wins") {
        run_test({.times = 100}, [] {
            cancel_scope scope;
            std::optional<int> value;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { scope.cancel(); });
                bool const finished = scope.run([&] {
                    value = group.start<int>([](task_status<int>& status) {
                        lowlevel::cancel_shielded_checkpoint();
                        status.started(1);
                    });
                });
                CHECK(finished == value.has_value());
                CHECK_FALSE(group.cancel_scope().cancel_called());
            });
        });
    }

    TEST_CASE("S16: a group cancelled while a child moves into it cancels the child") {
        run_test({.times = 100}, [] {
            std::atomic<bool> cut{false};
            std::atomic<bool> moved{false};
            with_task_group([&](task_group& group) {
                group.start_soon([&] { group.cancel(); });
                group.start([&](task_status<>& status) {
                    lowlevel::cancel_shielded_checkpoint();
                    status.started();
                    moved = true;
                    try {
                        sleep_forever();
                    } catch (cancelled const&) {
                        cut = true;
                        throw;
                    }
                });
            });
            CHECK(cut == moved);
        });
    }

    TEST_CASE("S9: start cancelled at any suspension: value or cancellation, and never a child left over") {
        cancel_at_every_suspension_point([](attempt& at) {
            int begun = 0;
            int ended = 0;
            struct end_counter {
                int& ended;
                ~end_counter() { ++ended; }
            };
            std::optional<int> value;
            bool finished = false;
            with_task_group([&](task_group& group) {
                finished = at.run([&] {
                    value = group.start<int>([&](task_status<int>& status) {
                        ++begun;
                        end_counter const counts{ended};
                        lowlevel::checkpoint();
                        weft::sleep(1ms);
                        status.started(3);
                        lowlevel::checkpoint();
                    });
                });
                check(!group.cancel_scope().cancel_called(), "the group is unharmed");
            });
            check(begun == 1 && ended == 1, "the child began and ended");
            check(finished == value.has_value(), "a value if it was not cut short");
        });
    }
}
