#include "support/gate.hpp"
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
#include <thread>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {
struct ordinary : std::runtime_error {
    ordinary() : std::runtime_error("ordinary") {}
};
} // namespace

TEST_SUITE("runtime.task_handle") {
    TEST_CASE("NX1: wait gives the child's value, each time a copy") {
        run_test([] {
            with_task_group([](task_group& group) {
                auto const number = group.create_task([] { return 5; });
                auto const text = group.create_task({.name = "t"}, [](int n) { return std::string(std::size_t(n), 'x'); }, 500);
                auto const nothing = group.create_task([] { weft::sleep(1ms); });
                CHECK(number.wait() == 5);
                CHECK(number.wait() == 5);
                CHECK(text.wait().size() == 500);
                nothing.wait();
                CHECK(nothing.done());
                CHECK_FALSE(nothing.cancelled());
            });
        });
    }

    TEST_CASE("NX1: a move-only value is given once") {
        run_test([] {
            with_task_group([](task_group& group) {
                auto const handle = group.create_task([] { return std::make_unique<int>(5); });
                CHECK(*handle.wait() == 5);
                check_throws<std::logic_error>([&] { handle.wait(); }, "the second time");
            });
        });
    }

    TEST_CASE("NX1: a handle outlives its task, its group and its run") {
        std::optional<task_handle<std::string>> kept;
        auto const token = std::make_shared<int>();
        std::optional<task_handle<std::shared_ptr<int>>> of_token;
        run({.workers = 2}, [&] {
            with_task_group([&](task_group& group) {
                kept = group.create_task([] { return std::string(100, 'a'); });
                of_token = group.create_task([token] { return token; });
            });
            CHECK(kept->wait().size() == 100);
        });
        CHECK(kept->done());
        CHECK(kept->info().state == task_state::finished);
        kept->cancel();
        CHECK_FALSE(kept->cancelled());
        auto const copy = kept;
        kept.reset();
        CHECK(copy->done());
        CHECK(token.use_count() == 2);
        of_token.reset();
        CHECK(token.use_count() == 1);
    }

    TEST_CASE("NX1: dropping a handle changes nothing") {
        run_test([] {
            std::atomic<bool> ran{false};
            with_task_group([&](task_group& group) {
                (void)group.create_task([&] {
                    weft::sleep(1ms);
                    ran = true;
                });
            });
            CHECK(ran);
        });
    }

    TEST_CASE("NX1: cancel cuts that task short, and neither its siblings nor the group") {
        run_test([] {
            std::atomic<bool> sibling_done{false};
            task_group group;
            group.run([&] {
                auto const handle = group.create_task([] { sleep_forever(); });
                group.start_soon([&] {
                    weft::sleep(2ms);
                    sibling_done = true;
                });
                wait_all_tasks_blocked();
                CHECK_FALSE(handle.done());
                handle.cancel();
                check_throws<task_cancelled>([&] { handle.wait(); }, "of the cancelled one");
                CHECK(handle.cancelled());
            });
            CHECK(sibling_done);
            CHECK_FALSE(group.cancel_scope().cancel_called());
        });
    }

    TEST_CASE("NX1, C29: cancelled before its first step a task still runs to its first checkpoint") {
        run_test({.times = 20}, [] {
            std::atomic<int> begun{0};
            std::atomic<int> went_on{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 10; ++task) {
                    auto const handle = group.create_task([&] {
                        ++begun;
                        sleep_forever();
                        ++went_on;
                    });
                    handle.cancel();
                    handle.cancel();
                }
            });
            CHECK(begun == 10);
            CHECK(went_on == 0);
        });
    }

    TEST_CASE("NX1: an OS thread may cancel through a handle and read its state") {
        run_test([] {
            with_task_group([](task_group& group) {
                auto const handle = group.create_task([] { sleep_forever(); });
                std::thread canceller([handle] {
                    CHECK_FALSE(handle.info().name.empty());
                    handle.cancel();
                });
                check_throws<task_cancelled>([&] { handle.wait(); }, "cancelled from outside");
                canceller.join();
            });
        });
    }

    TEST_CASE("NX2: a task that gives a value although it was cancelled has finished") {
        run_test([] {
            with_task_group([](task_group& group) {
                auto const handle = group.create_task([] {
                    try {
                        sleep_forever();
                    } catch (cancelled const&) { // swallowed
                    }
                    return 4;
                });
                wait_all_tasks_blocked();
                handle.cancel();
                CHECK(handle.wait() == 4);
                CHECK_FALSE(handle.cancelled());
            });
        });
    }

    TEST_CASE("NX2: a task cancelled with its whole group is cancelled") {
        run_test([] {
            std::optional<task_handle<int>> handle;
            with_task_group([&](task_group& group) {
                handle = group.create_task([] { return sleep_forever(), 1; });
                wait_all_tasks_blocked();
                group.cancel();
            });
            CHECK(handle->done());
            CHECK(handle->cancelled());
            check_throws<task_cancelled>([&] { handle->wait(); }, "after the group");
        });
    }

    TEST_CASE("NX3: the failure of the child is nested in what wait throws") {
        run_test([] {
            bool nested = false;
            std::optional<task_handle<int>> handle;
            check_throws<exception_group>(
                [&] {
                    with_task_group([&](task_group& group) {
                        handle = group.create_task({.name = "failing"}, []() -> int { throw ordinary(); });
                        lowlevel::cancel_shielded_checkpoint();
                    });
                },
                "NX4: through the group all the same");
            try {
                handle->wait();
            } catch (task_failed const& failed) {
                CHECK(std::string(failed.what()).find("failing") != std::string::npos);
                try {
                    std::rethrow_if_nested(failed);
                } catch (ordinary const&) {
                    nested = true;
                }
            }
            CHECK(nested);
            CHECK(handle->done());
            CHECK_FALSE(handle->cancelled());
            handle.reset();
        });
    }

    TEST_CASE("NX4: a failure that wait reported leaves through the group all the same") {
        run_test([] {
            bool waited = false;
            check_throws<exception_group>(
                [&] {
                    with_task_group([&](task_group& group) {
                        auto const handle = group.create_task([] { throw ordinary(); });
                        shielded([&] {
                            try {
                                handle.wait();
                            } catch (task_failed const&) {
                                waited = true;
                            }
                        });
                    });
                },
                "the group");
            CHECK(waited);
        });
    }

    TEST_CASE("NX3, EX5: task_cancelled is not a task_failed") {
        static_assert(!std::is_base_of_v<task_failed, task_cancelled>);
        static_assert(std::is_base_of_v<error, task_cancelled>);
        static_assert(std::is_base_of_v<error, task_failed>);
    }

    TEST_CASE("M1: wait is a cancellation point, and a cancelled one takes nothing") {
        run_test([] {
            with_task_group([](task_group& group) {
                gate go;
                auto const handle = group.create_task([&] {
                    go.wait();
                    return std::make_unique<int>(3);
                });
                CHECK_FALSE(move_on_after(100us, [&] { handle.wait(); }));
                go.open();
                CHECK(*handle.wait() == 3);
                cancel_scope scope;
                auto const ready = group.create_task([] { return std::make_unique<int>(3); });
                while (!ready.done())
                    lowlevel::checkpoint();
                CHECK_FALSE(scope.run([&] {
                    scope.cancel();
                    ready.wait();
                }));
                CHECK(*ready.wait() == 3);
            });
        });
        cancel_at_every_suspension_point([](attempt& at) {
            with_task_group([&](task_group& group) {
                auto const handle = group.create_task([] {
                    weft::sleep(1ms);
                    return std::make_unique<int>(3);
                });
                std::unique_ptr<int> value;
                bool const finished = at.run([&] { value = handle.wait(); });
                check(finished == (value != nullptr), "a value, or cut short");
                if (!finished) check(*handle.wait() == 3, "the value is still there");
            });
        });
    }

    TEST_CASE("NX14: many waiters of one task all get its value") {
        run_test({.times = 20}, [] {
            std::atomic<int> sum{0};
            gate go;
            with_task_group([&](task_group& group) {
                auto const handle = group.create_task([&] {
                    go.wait();
                    return 1;
                });
                for (int waiter = 0; waiter < 20; ++waiter)
                    group.start_soon([&sum, handle, waiter] {
                        if (waiter % 4 == 0)
                            move_on_after(0ns, [&] { handle.wait(); });
                        sum += handle.wait();
                    });
                lowlevel::checkpoint();
                go.open();
            });
            CHECK(sum == 20);
        });
    }

    TEST_CASE("NX14: cancel, the task's end and wait at the same time") {
        run_test({.seeds = {0, 1}, .times = 50}, [] {
            with_task_group([](task_group& group) {
                for (int time = 0; time < 10; ++time) {
                    auto const handle = group.create_task([] { return lowlevel::checkpoint(), 1; });
                    group.start_soon([handle] { handle.cancel(); });
                    bool value = false;
                    try {
                        value = handle.wait() == 1;
                    } catch (task_cancelled const&) {
                    }
                    check(handle.done() && value == !handle.cancelled(), "one or the other");
                }
            });
        });
    }
}
