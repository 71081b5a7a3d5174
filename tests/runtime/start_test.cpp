#include "support/another_run.hpp"
#include "support/gate.hpp"
#include "support/old_cancellation.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {
struct ordinary : std::runtime_error {
    explicit ordinary(int which = 0) : std::runtime_error("ordinary"), number(which) {}
    int number;
};
} // namespace

TEST_SUITE("runtime.start") {
    TEST_CASE("S1: start waits for started() and gives its value") {
        run_test([] {
            std::atomic<bool> done{false};
            with_task_group([&](task_group& group) {
                CHECK(group.start<int>([&](task_status<int>& status) {
                    lowlevel::checkpoint();
                    status.started(5);
                    weft::sleep(1ms);
                    done = true;
                }) == 5);
                group.start([](task_status<>& status) { status.started(); });
                auto const moved = group.start<std::unique_ptr<int>>(
                    [](task_status<std::unique_ptr<int>>& status, int given) {
                        status.started(std::make_unique<int>(given));
                    },
                    7);
                CHECK(*moved == 7);
            });
        });
    }

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

    TEST_CASE("S1: start in a cancelled scope gives the value of a child that meets no checkpoint") {
        run_test([] {
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                scope.run([&] {
                    scope.cancel();
                    int value = 0;
                    try {
                        value = group.start<int>([](task_status<int>& status) { status.started(3); });
                    } catch (cancelled const&) { // on several workers the cancellation may be first
                        throw;
                    }
                    CHECK(value == 3);
                });
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

    TEST_CASE("S3: a deadline of the caller reaches the child") {
        run_test([] {
            with_task_group([](task_group& group) {
                CHECK_FALSE(
                    move_on_after(1ms, [&] { group.start([](task_status<>&) { sleep_forever(); }); }));
            });
        });
    }

    TEST_CASE("S4: after started() the group's cancellation counts and the caller's does not") {
        run_test([] {
            std::atomic<bool> cut{false};
            cancel_scope scope;
            task_group group;
            group.run([&] {
                scope.run([&] {
                    group.start([&](task_status<>& status) {
                        status.started();
                        try {
                            sleep_forever();
                        } catch (cancelled const&) {
                            cut = true;
                            throw;
                        }
                    });
                    wait_all_tasks_blocked();
                    scope.cancel();
                });
                wait_all_tasks_blocked();
                CHECK_FALSE(cut);
                group.cancel();
            });
            CHECK(cut);
        });
    }

    TEST_CASE("S4: scopes that the child has opened move with it") {
        run_test([] {
            std::atomic<bool> cut{false};
            cancel_scope inner;
            task_group group;
            group.run([&] {
                group.start([&](task_status<>& status) {
                    inner.run([&] {
                        with_task_group([&](task_group& children) {
                            children.start_soon([&] {
                                try {
                                    sleep_forever();
                                } catch (cancelled const&) {
                                    cut = true;
                                    throw;
                                }
                            });
                            wait_all_tasks_blocked();
                            status.started();
                        });
                    });
                });
                wait_all_tasks_blocked();
                group.cancel();
            });
            CHECK(cut);
            CHECK_FALSE(inner.cancel_called());
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

    TEST_CASE("S5: an error before started() leaves from start as it is, and from nowhere else") {
        run_test([] {
            std::atomic<void const*> thrown{nullptr};
            task_group group;
            group.run([&] {
                try {
                    group.start([&](task_status<>&) {
                        try {
                            throw ordinary(3);
                        } catch (ordinary const& error) {
                            thrown = &error;
                            throw;
                        }
                    });
                    check(false, "not reached");
                } catch (ordinary const& error) {
                    CHECK(error.number == 3);
                    CHECK(static_cast<void const*>(&error) == thrown);
                }
                lowlevel::checkpoint();
            });
            CHECK_FALSE(group.cancel_scope().cancel_called());
        });
    }

    TEST_CASE("S5: a cancellation that is nobody's here leaves from start as task_cancelled, and from nowhere else") {
        run_test([] {
            task_group group;
            group.run([&] {
                check_throws<task_cancelled>(
                    [&] {
                        group.start(task_options{.name = "child"},
                                    [](task_status<>&) { std::rethrow_exception(old_cancellation()); });
                    },
                    "task 'child'");
                lowlevel::checkpoint();
            });
            CHECK_FALSE(group.cancel_scope().cancel_called());
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

    TEST_CASE("S6: a child that ends without started() is a logic_error of start only") {
        run_test([] {
            with_task_group([](task_group& group) {
                check_throws<std::logic_error>([&] { group.start([](task_status<>&) {}); }, "start");
                lowlevel::checkpoint();
                CHECK_FALSE(group.cancel_scope().cancel_called());
            });
        });
    }

    TEST_CASE("S7: an error after started() belongs to the group, and start has its value") {
        run_test({.times = 20}, [] {
            std::optional<int> value;
            check_throws<exception_group>(
                [&] {
                    with_task_group([&](task_group& group) {
                        value = group.start<int>([](task_status<int>& status) {
                            status.started(4);
                            throw ordinary();
                        });
                    });
                },
                "the group's errors");
            CHECK(value == 4);
        });
    }

    TEST_CASE("S8: started() twice is an error in the child") {
        run_test([] {
            bool refused = false;
            with_task_group([&](task_group& group) {
                group.start([&](task_status<>& status) {
                    status.started();
                    try {
                        status.started();
                    } catch (std::logic_error const&) {
                        refused = true;
                    }
                });
                CHECK(group.start<int>([](task_status<int>& status) {
                    status.started(1);
                    try {
                        status.started(2);
                    } catch (std::logic_error const&) { // the first value stays
                    }
                }) == 1);
            });
            CHECK(refused);
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

    TEST_CASE("S11: a group does not close while a start into it is pending") {
        run_test([] {
            std::atomic<bool> ran{false};
            task_group group;
            gate go, waiting;
            with_task_group([&](task_group& outer) {
                outer.start_soon([&] {
                    waiting.wait();
                    group.start([&](task_status<>& status) {
                        go.wait();
                        status.started();
                        weft::sleep(1ms);
                        ran = true;
                    });
                });
                group.run([&] {
                    waiting.open();
                    wait_all_tasks_blocked();
                    outer.start_soon([&] {
                        weft::sleep(1ms);
                        go.open();
                    });
                });
                CHECK(ran);
            });
        });
    }

    TEST_CASE("E1, S4: start() on a group of another run is refused, and starts nothing") {
        group_of_another_run const other;
        bool ran = false;
        run({.workers = 1}, [&] {
            try {
                (*other).start([&](task_status<>& status) {
                    ran = true;
                    status.started();
                });
                CHECK(false);
            } catch (std::logic_error const& refused) {
                CHECK(std::string(refused.what()).find("another run") != std::string::npos);
            }
        });
        CHECK_FALSE(ran);
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

    TEST_CASE("S13: the child's parent is the caller until started(), then the group's host") {
        run_test([] {
            std::uint64_t const host = get_current_task().id;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    std::uint64_t const caller = get_current_task().id;
                    group.start([&](task_status<>& status) {
                        CHECK(get_current_task().parent_id == caller);
                        status.started();
                        CHECK(get_current_task().parent_id == host);
                    });
                });
            });
        });
    }

    TEST_CASE("S15: several starts into one group are independent") {
        run_test([] {
            std::atomic<int> sum{0};
            with_task_group([&](task_group& group) {
                for (int number = 0; number < 10; ++number)
                    group.start_soon([&, number] {
                        if (number % 3 == 0)
                            check_throws<ordinary>(
                                [&] {
                                    group.start([](task_status<>&) {
                                        lowlevel::checkpoint();
                                        throw ordinary();
                                    });
                                },
                                "its own error");
                        else
                            sum += group.start<int>([number](task_status<int>& status) {
                                lowlevel::checkpoint();
                                status.started(number);
                            });
                    });
            });
            CHECK(sum == 1 + 2 + 4 + 5 + 7 + 8);
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

    TEST_CASE("S17: the caller may leave and end the group while the child is still in started()") {
        run_test({.times = 100}, [] {
            std::atomic<int> ended{0};
            for (int time = 0; time < 5; ++time) {
                with_task_group([&](task_group& group) {
                    group.start([&](task_status<>& status) {
                        status.started();
                        ++ended;
                    });
                    group.cancel();
                });
            }
            CHECK(ended == 5);
        });
    }

    TEST_CASE("S18: another task may call started()") {
        run_test([] {
            with_task_group([](task_group& group) {
                task_group* const outer = &group;
                CHECK(group.start<int>([outer](task_status<int>& status) {
                    with_task_group([&](task_group& inner) {
                        inner.start_soon([&] { status.started(9); });
                    });
                    (void)outer;
                }) == 9);
            });
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

    TEST_CASE("S2: start() on a group that is not open is refused, and the function does not run") {
        run_test([] {
            bool ran = false;
            task_group closed;
            auto const start = [&] { closed.start([&](task_status<>&) { ran = true; }); };
            check_throws<std::logic_error>(start, "before it is open");
            closed.run([] {});
            check_throws<std::logic_error>(start, "after it has ended");
            check(!ran, "nothing ran");
        });
    }

    TEST_CASE("S14: a status that nobody waits for takes started() and does nothing") {
        auto const serve = [](task_status<int>& ready, int& served) {
            ready.started(7);
            ready.started(8); // nobody counts
            lowlevel::checkpoint();
            ++served;
        };
        run_test([&] {
            int served = 0;
            task_status<int> ignored;
            serve(ignored, served);
            with_task_group(
                [&](task_group& group) { group.start_soon([&] { serve(ignored, served); }); });
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    task_status<> own;
                    own.started();
                    own.started();
                    ++served;
                });
            });
            check(served == 3, "all three were served");
        });
    }
}
