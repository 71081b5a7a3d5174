#include <weft/sync/latch.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>

#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>

TEST_SUITE_BEGIN("sync.latch");

TEST_CASE("it opens when it has been counted down to zero") {
    on_each_runtime([] {
        weft::latch latch(3);
        std::atomic<int> passed = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int waiter = 0; waiter < 3; ++waiter)
                group.start_soon([&] {
                    latch.wait();
                    ++passed;
                });
            weft::wait_all_tasks_blocked();
            latch.count_down(2);
            weft::wait_all_tasks_blocked();
            CHECK(passed == 0);
            CHECK_FALSE(latch.try_wait());
            latch.arrive_and_wait();
            CHECK(latch.try_wait());
        });
        CHECK(passed == 3);
        CHECK(throws<std::logic_error>([&] { latch.count_down(); }));
        CHECK(throws<std::invalid_argument>([] { weft::latch(-1); }));
    });
}

TEST_CASE("a cancelled wait() leaves the latch as it is, arrive_and_wait() has counted down") {
    on_each_runtime([] {
        weft::latch latch(2);
        weft::cancel_scope waiting;
        weft::cancel_scope arriving;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { waiting.run([&] { latch.wait(); }); });
            group.start_soon([&] { arriving.run([&] { latch.arrive_and_wait(); }); });
            weft::wait_all_tasks_blocked();
            waiting.cancel();
            arriving.cancel();
        });
        CHECK_FALSE(latch.try_wait());
        latch.count_down();
        latch.wait();
    });
}

TEST_CASE("M15: who came through may destroy it") {
    often_on_each_runtime(200, [] {
        auto latch = std::make_unique<weft::latch>(1);
        weft::latch& named = *latch;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { named.count_down(); });
            named.wait();
            latch.reset();
        });
    });
}

TEST_CASE("M15: those whom the last to arrive has woken may destroy it before that one goes on") {
    weft::test::run_test({.seeds = {}, .times = 10}, [] {
        std::optional<weft::latch> latch(1);
        std::atomic<bool> destroyed = false;
        std::atomic<bool> came_back = false;
        weft::with_task_group([&](weft::task_group& group) {
            for (int waiter = 0; waiter < 1000; ++waiter) // the first is out while the others are still woken
                group.start_soon([&] {
                    latch->wait();
                    if (!destroyed.exchange(true)) latch.emplace(1);
                });
            weft::wait_all_tasks_blocked();
            group.start_soon([&, &shared = *latch] {
                shared.arrive_and_wait();
                came_back = true;
            });
            weft::wait_all_tasks_blocked();
            CHECK(came_back);
            latch->count_down(); // of the second one, for who waits there by mistake
        });
    });
}

TEST_SUITE_END();
