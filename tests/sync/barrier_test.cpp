#include <weft/sync/barrier.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <atomic>
#include <stdexcept>

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

TEST_SUITE_END();
