#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/mutex.hpp>
#include <weft/sync/semaphore.hpp>

#include <atomic>
#include <chrono>
#include <thread>

TEST_SUITE_BEGIN("sync.statistics");

using namespace std::chrono_literals;
using weft::test::check;

namespace {

/// What may never be seen, by whomever, at whatever moment.
void check_snapshots(weft::capacity_limiter const& limiter, weft::mutex const& lock) {
    auto const lent = limiter.statistics();
    check(lent.borrowers.size() == std::size_t(lent.borrowed_tokens), "each token has a borrower");
    check(lent.borrowed_tokens <= lent.total_tokens, "no more are lent than there are");
    check(lent.tasks_waiting == 0 || lent.borrowed_tokens == lent.total_tokens,
          "nobody waits for a free one");
    auto const held = lock.statistics();
    check(held.locked == held.owner.has_value(), "a locked mutex has an owner");
    check(held.tasks_waiting == 0 || held.locked, "nobody waits for a free mutex");
}

} // namespace

TEST_CASE("M13: statistics are snapshots that fit together, from any task and thread") {
    weft::test::run_test({.times = 5}, [] {
        weft::capacity_limiter limiter(2);
        weft::mutex lock;
        std::atomic<bool> over{false}, failed{false};
        std::thread outside([&] {
            try {
                while (!over)
                    check_snapshots(limiter, lock);
            } catch (weft::test::failure const&) {
                failed = true;
            }
        });
        struct join {
            std::thread& thread;
            std::atomic<bool>& over;
            ~join() {
                over = true;
                thread.join();
            }
        } const at_the_end{outside, over};
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 6; ++task)
                group.start_soon([&, task] {
                    for (int time = 0; time < 50; ++time) {
                        weft::move_on_after(time % 3 == 0 ? 0ms : 1h, [&] {
                            limiter.acquire();
                            check_snapshots(limiter, lock);
                            weft::lowlevel::cancel_shielded_checkpoint();
                            limiter.release();
                            lock.lock();
                            weft::lowlevel::cancel_shielded_checkpoint();
                            lock.unlock();
                        });
                        if (task == 0) check_snapshots(limiter, lock);
                    }
                });
        });
        check(!failed, "as seen by a thread");
        check_snapshots(limiter, lock);
    });
}

TEST_CASE("M13: who waits is counted, who left is not") {
    on_each_runtime([] {
        weft::event happens;
        weft::semaphore permits(0);
        weft::with_task_group([&](weft::task_group& group) {
            weft::cancel_scope leaves;
            group.start_soon([&] { leaves.run([&] { happens.wait(); }); });
            for (int task = 0; task < 3; ++task) {
                group.start_soon([&] { happens.wait(); });
                group.start_soon([&] { permits.acquire(); });
            }
            weft::wait_all_tasks_blocked();
            check(happens.statistics().tasks_waiting == 4, "four wait for the event");
            check(permits.statistics().tasks_waiting == 3 && permits.value() == 0,
                  "three for a permit");
            leaves.cancel();
            weft::wait_all_tasks_blocked();
            check(happens.statistics().tasks_waiting == 3, "one has left");
            happens.set();
            permits.release();
            weft::wait_all_tasks_blocked();
            check(happens.statistics().tasks_waiting == 0, "all have passed");
            check(permits.statistics().tasks_waiting == 2, "one has a permit");
            group.cancel();
        });
    });
}

TEST_SUITE_END();
