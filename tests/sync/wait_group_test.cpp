#include <weft/sync/wait_group.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <atomic>
#include <memory>
#include <stdexcept>

TEST_SUITE_BEGIN("sync.wait_group");

TEST_CASE("wait() returns when all that was added is done, again and again") {
    on_each_runtime([] {
        weft::wait_group work;
        work.wait();
        for (int round = 0; round < 10; ++round) {
            std::atomic<int> finished = 0;
            weft::with_task_group([&](weft::task_group& group) {
                work.add(3);
                for (int task = 0; task < 3; ++task)
                    group.start_soon([&] {
                        weft::lowlevel::checkpoint();
                        ++finished;
                        work.done();
                    });
                work.wait();
                CHECK(finished == 3);
            });
        }
        CHECK(throws<std::logic_error>([&] { work.done(); }));
    });
}

TEST_CASE("a cancelled wait() leaves nothing behind") {
    on_each_runtime([] {
        auto work = std::make_unique<weft::wait_group>();
        work->add();
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { work->wait(); }); });
            weft::wait_all_tasks_blocked();
            scope.cancel();
        });
        CHECK(scope.cancelled_caught());
        work->done();
        work->wait();
    });
}

TEST_CASE("more work than can be counted is refused, and none of it added") {
    on_each_runtime([] {
        weft::wait_group work;
        work.add(2);
        CHECK(throws<std::logic_error>([&] { work.add(std::size_t(-1)); }));
        work.done();
        work.done();
        work.wait();
    });
}

TEST_CASE("M15: who came through may destroy it") {
    often_on_each_runtime(200, [] {
        auto work = std::make_unique<weft::wait_group>();
        weft::wait_group& named = *work;
        work->add();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { named.done(); });
            named.wait();
            work.reset();
        });
    });
}

TEST_SUITE_END();
