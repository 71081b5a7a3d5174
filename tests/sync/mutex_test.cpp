#include <weft/sync/mutex.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

using namespace std::chrono_literals;

TEST_SUITE_BEGIN("sync.mutex");

TEST_CASE("LK1: the owner cannot lock it again") {
    on_each_runtime([] {
        weft::mutex mutex;
        std::unique_lock const lock(mutex);
        CHECK(throws<std::logic_error>([&] { mutex.lock(); }));
        CHECK(throws<std::logic_error>([&] { mutex.acquire_nowait(); }));
        CHECK(throws<std::logic_error>([&] { mutex.try_lock(); }));
        CHECK(mutex.locked());
    });
}

TEST_CASE("LK2: the nowait calls take a free mutex and no other") {
    on_each_runtime([] {
        weft::mutex mutex;
        mutex.acquire_nowait();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                if (mutex.try_lock()) throw std::runtime_error("took a held mutex");
                if (!throws<weft::would_block>([&] { mutex.acquire_nowait(); }))
                    throw std::runtime_error("did not say that it would wait");
            });
        });
        mutex.unlock();
        CHECK(mutex.try_lock());
        mutex.unlock();
        CHECK_FALSE(mutex.locked());
    });
}

TEST_CASE("LK2: waiters come in by the order in which they queued") {
    on_each_runtime([] {
        weft::mutex mutex;
        std::vector<int> order;
        weft::with_task_group([&](weft::task_group& group) {
            std::unique_lock lock(mutex);
            for (int number = 0; number < 5; ++number) {
                group.start_soon([&, number] {
                    std::unique_lock const own(mutex);
                    order.push_back(number);
                });
                weft::wait_all_tasks_blocked();
            }
            lock.unlock();
        });
        CHECK(order == std::vector{0, 1, 2, 3, 4});
    });
}

TEST_CASE("LK3: only the owner can unlock it") {
    on_each_runtime([] {
        weft::mutex mutex;
        CHECK(throws<std::logic_error>([&] { mutex.unlock(); }));
        std::unique_lock const lock(mutex);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                if (!throws<std::logic_error>([&] { mutex.unlock(); }))
                    throw std::runtime_error("a stranger unlocked it");
            });
        });
        CHECK(mutex.locked());
    });
}

TEST_CASE("LK3: with a waiter it passes on without being free in between") {
    on_each_runtime([] {
        weft::mutex mutex;
        weft::with_task_group([&](weft::task_group& group) {
            mutex.lock();
            std::atomic<bool> had_it = false;
            group.start_soon([&] {
                std::unique_lock const lock(mutex);
                had_it = true;
            });
            weft::wait_all_tasks_blocked();
            mutex.unlock();
            // Whoever comes now is behind the waiter, whether that has run or not.
            mutex.lock();
            CHECK(had_it);
            mutex.unlock();
        });
    });
}

TEST_CASE("LK4: a cancelled waiter leaves the queue") {
    on_each_runtime([] {
        weft::mutex mutex;
        weft::cancel_scope scope;
        std::atomic<bool> came_in = false;
        std::atomic<bool> other_came_in = false;
        weft::with_task_group([&](weft::task_group& group) {
            mutex.lock();
            group.start_soon([&] {
                scope.run([&] {
                    mutex.lock();
                    came_in = true;
                });
            });
            weft::wait_all_tasks_blocked();
            group.start_soon([&] {
                std::unique_lock const lock(mutex);
                other_came_in = true;
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            weft::wait_all_tasks_blocked();
            CHECK(mutex.statistics().tasks_waiting == 1);
            mutex.unlock();
        });
        CHECK_FALSE(came_in);
        CHECK(other_came_in);
        CHECK_FALSE(mutex.locked());
    });
}

TEST_CASE("LK4: who was handed the mutex owns it, although a cancellation follows") {
    on_each_runtime([] {
        weft::mutex mutex;
        weft::cancel_scope scope;
        std::atomic<bool> came_in = false;
        weft::with_task_group([&](weft::task_group& group) {
            mutex.lock();
            group.start_soon([&] {
                scope.run([&] {
                    std::unique_lock const lock(mutex);
                    came_in = true;
                });
            });
            weft::wait_all_tasks_blocked();
            mutex.unlock();
            scope.cancel();
        });
        CHECK(came_in);
        CHECK_FALSE(mutex.locked());
    });
}

TEST_CASE("LK4: unlock() against cancel(): the mutex is never lost") {
    often_on_each_runtime(100, [] {
        auto const mutex = std::make_unique<weft::mutex>();
        weft::cancel_scope scope;
        int inside = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int waiter = 0; waiter < 3; ++waiter)
                group.start_soon([&, waiter] {
                    auto const work = [&] {
                        std::unique_lock const lock(*mutex);
                        if (++inside != 1) throw std::runtime_error("two tasks inside");
                        weft::lowlevel::cancel_shielded_checkpoint();
                        --inside;
                    };
                    if (waiter == 1)
                        scope.run(work);
                    else
                        work();
                });
            group.start_soon([&] { scope.cancel(); });
        });
        CHECK_FALSE(mutex->locked());
        CHECK(mutex->statistics().tasks_waiting == 0);
        CHECK(mutex->try_lock());
        mutex->unlock();
    });
}

TEST_CASE("LK5: in a cancelled scope lock() throws although the mutex is free") {
    on_each_runtime([] {
        for (bool fast : {false, true}) {
            weft::mutex mutex({.fast_acquire = fast});
            weft::cancel_scope scope;
            bool came_in = false;
            scope.run([&] {
                scope.cancel();
                std::unique_lock const lock(mutex);
                came_in = true;
            });
            CHECK_FALSE(came_in);
            CHECK_FALSE(mutex.locked());
        }
    });
}

TEST_CASE("LK6: statistics name the owner and count the waiters") {
    on_each_runtime([] {
        weft::mutex mutex;
        CHECK_FALSE(mutex.statistics().locked);
        CHECK_FALSE(mutex.statistics().owner.has_value());
        weft::with_task_group([&](weft::task_group& group) {
            mutex.lock();
            for (int waiter = 0; waiter < 2; ++waiter)
                group.start_soon([&] { std::unique_lock const lock(mutex); });
            weft::wait_all_tasks_blocked();
            weft::lock_statistics const held = mutex.statistics();
            CHECK(held.locked);
            CHECK(held.tasks_waiting == 2);
            CHECK(held.owner.has_value());
            if (held.owner) CHECK(held.owner->id == weft::get_current_task().id);
            mutex.unlock();
        });
    });
}

TEST_CASE("LK6: statistics can be asked for while the owners change") {
    on_each_runtime([] {
        weft::mutex mutex;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 3; ++task)
                group.start_soon([&] {
                    for (int step = 0; step < 100; ++step) {
                        std::unique_lock const lock(mutex);
                        weft::lowlevel::checkpoint();
                    }
                });
            for (int look = 0; look < 200; ++look) {
                weft::lock_statistics const seen = mutex.statistics();
                if (seen.owner && !seen.locked) throw std::runtime_error("an owner of a free mutex");
                weft::lowlevel::checkpoint();
            }
        });
    });
}

TEST_CASE("LK9: it can be made outside of a run, and needs a task to be locked") {
    weft::mutex mutex;
    CHECK(throws<weft::no_event_loop_error>([&] { mutex.lock(); }));
    CHECK(throws<weft::no_event_loop_error>([&] { mutex.try_lock(); }));
    CHECK(throws<weft::no_event_loop_error>([&] { mutex.unlock(); }));
    CHECK_FALSE(mutex.statistics().locked);
    on_each_runtime([&] { std::unique_lock const lock(mutex); });
}

TEST_CASE("LK10: one task at a time, under contention and cancellation by deadlines") {
    on_each_runtime([] {
        weft::mutex mutex;
        int inside = 0;
        int count = 0;
        std::atomic<int> entered = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 8; ++task)
                group.start_soon([&, task] {
                    for (int step = 0; step < 60; ++step) {
                        auto const work = [&] {
                            std::unique_lock const lock(mutex);
                            if (++inside != 1) throw std::runtime_error("two tasks inside");
                            if (step % 3 == 0) weft::lowlevel::cancel_shielded_checkpoint();
                            ++count;
                            ++entered;
                            --inside;
                        };
                        if ((task + step) % 4 == 0)
                            weft::move_on_after(step * 1us, work);
                        else
                            work();
                    }
                });
        });
        CHECK(count == entered);
        CHECK(count >= 8 * 60 * 3 / 4);
        CHECK_FALSE(mutex.locked());
    });
}

TEST_CASE("M15: the next owner may destroy it as soon as it has come in") {
    often_on_each_runtime(200, [] {
        auto mutex = std::make_unique<weft::mutex>();
        weft::mutex& named = *mutex;
        weft::with_task_group([&](weft::task_group& group) {
            named.lock();
            group.start_soon([&] {
                named.lock();
                named.unlock();
                mutex.reset();
            });
            weft::lowlevel::checkpoint();
            named.unlock();
        });
    });
}

TEST_CASE("LK7: a guard whose lock() was cancelled does not unlock, one that has it does on every way out") {
    on_each_runtime([] {
        weft::mutex lock;
        weft::cancel_scope scope;
        scope.cancel();
        scope.run([&] { std::unique_lock const guard(lock); });
        CHECK_FALSE(lock.locked());
        CHECK(throws<std::runtime_error>([&] {
            std::lock_guard const guard(lock);
            throw std::runtime_error("passes");
        }));
        CHECK_FALSE(lock.locked());
    });
}

TEST_SUITE_END();
