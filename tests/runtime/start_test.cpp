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
