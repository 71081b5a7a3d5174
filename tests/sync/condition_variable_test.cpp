#include <weft/sync/condition_variable.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/event.hpp>

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

TEST_SUITE_BEGIN("sync.condition_variable");

TEST_CASE("CD1, CD3: whoever locked the mutex may wait and notify, nobody else") {
    on_each_runtime([] {
        weft::mutex mutex;
        weft::condition_variable bell(mutex);
        CHECK(&bell.lock() == &mutex);
        CHECK(throws<std::logic_error>([&] { bell.wait(); }));
        CHECK(throws<std::logic_error>([&] { bell.notify(); }));
        CHECK(throws<std::logic_error>([&] { bell.notify_all(); }));
        mutex.lock();
        bell.notify();
        mutex.unlock();
        CHECK(throws<std::logic_error>([&] { bell.notify(); }));
    });
}

TEST_CASE("CD2: in a cancelled scope wait() throws without letting the mutex go") {
    on_each_runtime([] {
        weft::condition_variable bell;
        weft::cancel_scope scope;
        bool held = false;
        std::unique_lock const lock(bell.lock());
        scope.run([&] {
            scope.cancel();
            try {
                bell.wait();
            } catch (weft::cancelled const&) {
                held = bell.statistics().lock_statistics.owner->id == weft::get_current_task().id;
                throw;
            }
        });
        CHECK(scope.cancelled_caught());
        CHECK(held);
    });
}

TEST_CASE("CD2, CD8: cancelled, it takes the mutex again first") {
    on_each_runtime([] {
        weft::condition_variable bell;
        weft::cancel_scope scope;
        std::atomic<bool> held = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    std::unique_lock const lock(bell.lock());
                    try {
                        bell.wait();
                    } catch (weft::cancelled const&) {
                        held = bell.statistics().lock_statistics.owner->id ==
                               weft::get_current_task().id;
                        throw;
                    }
                });
            });
            weft::wait_all_tasks_blocked();
            bell.lock().lock();
            scope.cancel();
            weft::wait_all_tasks_blocked();
            CHECK_FALSE(held);
            CHECK(bell.statistics().tasks_waiting == 0);
            bell.lock().unlock();
        });
        CHECK(held);
        CHECK(scope.cancelled_caught());
        CHECK_FALSE(bell.lock().locked());
    });
}

TEST_CASE("CD3: notify() wakes the oldest, as many as it says") {
    on_each_runtime([] {
        weft::condition_variable bell;
        std::vector<int> awake;
        weft::with_task_group([&](weft::task_group& group) {
            for (int number = 0; number < 5; ++number) {
                group.start_soon([&, number] {
                    std::unique_lock const lock(bell.lock());
                    bell.wait();
                    awake.push_back(number);
                });
                weft::wait_all_tasks_blocked();
            }
            for (std::size_t count : {1, 2}) {
                {
                    std::unique_lock const lock(bell.lock());
                    bell.notify(count);
                }
                weft::wait_all_tasks_blocked();
            }
            std::unique_lock const lock(bell.lock());
            std::vector<int> sorted = awake;
            std::sort(sorted.begin(), sorted.end());
            CHECK(sorted == std::vector{0, 1, 2});
            CHECK(awake.front() == 0);
            CHECK(bell.statistics().tasks_waiting == 2);
            bell.notify_all();
        });
        CHECK(awake.size() == 5);
    });
}

TEST_CASE("CD4: notify() against cancel(): the notification reaches one who waits on") {
    often_on_each_runtime(60, [] {
        weft::condition_variable bell;
        weft::cancel_scope scope;
        int permits = 0;
        auto const take = [&] {
            std::unique_lock const lock(bell.lock());
            bell.wait([&] { return permits > 0; });
            --permits;
        };
        bool taken = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { taken = scope.run(take); });
            group.start_soon([&] { scope.cancel(); });
            weft::lowlevel::checkpoint();
            weft::task_group others;
            others.run([&] {
                others.start_soon(take);
                others.start_soon([&] {
                    for (int count = 0; count < 2; ++count) {
                        std::unique_lock const lock(bell.lock());
                        ++permits;
                        bell.notify();
                    }
                });
            });
        });
        CHECK(permits == (taken ? 0 : 1));
    });
}

TEST_CASE("CD7: the predicate is looked at under the mutex, first without waiting") {
    on_each_runtime([] {
        weft::condition_variable bell;
        int looks = 0;
        std::unique_lock const lock(bell.lock());
        bell.wait([&] {
            CHECK(bell.lock().locked());
            return ++looks == 1;
        });
        CHECK(looks == 1);
    });
}

TEST_CASE("M1, CD2: with a predicate that is true at once, too, wait() needs a task, the mutex and no "
          "cancellation") {
    weft::condition_variable bell;
    int looks = 0;
    auto const look = [&] { return ++looks > 0; };
    CHECK(throws<weft::no_event_loop_error>([&] { bell.wait(look); }));
    on_each_runtime([&] {
        CHECK(throws<std::logic_error>([&] { bell.wait(look); }));
        std::unique_lock const lock(bell.lock());
        weft::cancel_scope scope;
        scope.cancel();
        CHECK_FALSE(scope.run([&] { bell.wait(look); }));
    });
    CHECK(looks == 0);
}

TEST_CASE("CD5: a bounded queue loses nothing") {
    on_each_runtime([] {
        weft::mutex mutex;
        weft::condition_variable not_empty(mutex);
        weft::condition_variable not_full(mutex);
        std::deque<int> queue;
        std::atomic<int> sum = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int producer = 0; producer < 3; ++producer)
                group.start_soon([&] {
                    for (int item = 1; item <= 40; ++item) {
                        std::unique_lock const lock(mutex);
                        not_full.wait([&] { return queue.size() < 2; });
                        queue.push_back(item);
                        not_empty.notify();
                    }
                });
            for (int consumer = 0; consumer < 3; ++consumer)
                group.start_soon([&] {
                    for (int item = 1; item <= 40; ++item) {
                        std::unique_lock const lock(mutex);
                        not_empty.wait([&] { return !queue.empty(); });
                        sum += queue.front();
                        queue.pop_front();
                        not_full.notify();
                    }
                });
        });
        CHECK(sum == 3 * 40 * 41 / 2);
    });
}

TEST_CASE("CD6: statistics count the waiters, and tell of the mutex") {
    on_each_runtime([] {
        weft::mutex lock;
        weft::condition_variable changed(lock);
        weft::with_task_group([&](weft::task_group& group) {
            for (int waiter = 0; waiter < 3; ++waiter)
                group.start_soon([&] {
                    std::lock_guard const guard(lock);
                    changed.wait();
                });
            weft::wait_all_tasks_blocked();
            CHECK(changed.statistics().tasks_waiting == 3);
            CHECK_FALSE(changed.statistics().lock_statistics.locked);
            std::lock_guard const guard(lock);
            CHECK(changed.statistics().lock_statistics.locked);
            changed.notify_all();
        });
        CHECK(changed.statistics().tasks_waiting == 0);
    });
}

TEST_CASE("M15: whoever has notified everybody may destroy it before they have the mutex again") {
    on_each_runtime([] {
        weft::mutex shared;
        weft::mutex another;
        std::optional<weft::condition_variable> bell(std::in_place, shared);
        std::atomic<int> woken = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int waiter = 0; waiter < 3; ++waiter)
                group.start_soon([&] {
                    std::unique_lock const lock(shared);
                    bell->wait();
                    ++woken;
                });
            weft::wait_all_tasks_blocked();
            std::unique_lock const lock(shared);
            bell->notify_all();
            bell.emplace(another);
        });
        CHECK(woken == 3);
    });
}

TEST_SUITE_END();
