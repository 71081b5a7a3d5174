#include <weft/sync/barrier.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <utility>

TEST_SUITE_BEGIN("sync.barrier");

TEST_CASE("nobody begins a phase before all have ended the one before") {
    on_each_runtime([] {
        std::atomic<int> arrived = 0;
        std::atomic<bool> early = false;
        int phases = 0;
        weft::barrier meeting(4, [&]() noexcept {
            if (arrived != 4) early = true;
            arrived = 0;
            ++phases;
        });
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 4; ++task)
                group.start_soon([&, task] {
                    for (int phase = 0; phase < 25; ++phase) {
                        if ((task + phase) % 3 == 0) weft::lowlevel::checkpoint();
                        ++arrived;
                        meeting.arrive_and_wait();
                    }
                });
        });
        CHECK_FALSE(early);
        CHECK(phases == 25);
    });
}

TEST_CASE("who drops out is not expected any more") {
    on_each_runtime([] {
        weft::barrier meeting(2);
        auto token = meeting.arrive();
        meeting.arrive_and_drop();
        meeting.wait(std::move(token));
        meeting.arrive_and_wait();
        CHECK(throws<std::logic_error>([&] { (void)meeting.arrive(2); }));
    });
}

TEST_CASE("a number of arrivals that is none, or negative, is no valid argument") {
    weft::barrier meeting(2);
    CHECK(throws<std::invalid_argument>([&] { (void)meeting.arrive(-1); }));
    CHECK(throws<std::invalid_argument>([&] { (void)meeting.arrive(0); }));
    CHECK(throws<std::invalid_argument>([] { weft::barrier(-1); }));
    (void)meeting.arrive(2); // nothing was counted
}

TEST_CASE("one that is cancelled while it waits has arrived") {
    on_each_runtime([] {
        weft::barrier meeting(2);
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { meeting.arrive_and_wait(); }); });
            weft::wait_all_tasks_blocked();
            scope.cancel();
        });
        CHECK(scope.cancelled_caught());
        meeting.arrive_and_wait();
    });
}

TEST_CASE("M15: those whom the last to arrive has woken may destroy it before that one goes on") {
    weft::test::run_test({.seeds = {}, .times = 10}, [] {
        constexpr int others = 1000; // the first is out while the rest are still woken
        std::optional<weft::barrier<>> meeting(std::in_place, others + 1);
        std::atomic<bool> destroyed = false;
        std::atomic<bool> came_back = false;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < others; ++task)
                group.start_soon([&] {
                    meeting->arrive_and_wait();
                    if (!destroyed.exchange(true)) meeting.emplace(1);
                });
            weft::wait_all_tasks_blocked();
            group.start_soon([&, &shared = *meeting] {
                shared.arrive_and_wait();
                came_back = true;
            });
            weft::wait_all_tasks_blocked();
            CHECK(came_back);
            (void)meeting->arrive(); // at the second one, for who waits there by mistake
        });
    });
}

TEST_SUITE_END();
