#include <weft/sync/shared_mutex.hpp>

#include "each_runtime.hpp"
#include "support/mistakes.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/event.hpp>

#include <atomic>
#include <cstdint>
#include <limits>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>

namespace {

// Its private word: an explicit instantiation may name it.
template <auto Queue> struct word_of_shared_mutex {
    friend std::uint32_t& readers_inside(weft::shared_mutex& of) { return (of.*Queue).state; }
};
template struct word_of_shared_mutex<&weft::shared_mutex::queue_>;
std::uint32_t& readers_inside(weft::shared_mutex&);

} // namespace

TEST_SUITE_BEGIN("sync.shared_mutex");

TEST_CASE("readers share it, a writer is alone") {
    on_each_runtime([] {
        weft::shared_mutex mutex;
        std::atomic<int> readers = 0;
        std::atomic<int> writers = 0;
        std::atomic<bool> mixed = false;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 6; ++task)
                group.start_soon([&, task] {
                    for (int step = 0; step < 40; ++step) {
                        if ((task + step) % 3 == 0) {
                            std::unique_lock const lock(mutex);
                            if (++writers != 1 || readers != 0) mixed = true;
                            if (step % 2 == 0) weft::lowlevel::checkpoint();
                            --writers;
                        } else {
                            std::shared_lock const lock(mutex);
                            ++readers;
                            if (writers != 0) mixed = true;
                            if (step % 2 == 0) weft::lowlevel::checkpoint();
                            --readers;
                        }
                    }
                });
        });
        CHECK_FALSE(mixed);
        CHECK(mutex.try_lock());
        mutex.unlock();
    });
}

TEST_CASE("a reader that comes behind a waiting writer waits") {
    on_each_runtime([] {
        weft::shared_mutex mutex;
        weft::with_task_group([&](weft::task_group& group) {
            mutex.lock_shared();
            group.start_soon([&] { std::unique_lock const lock(mutex); });
            weft::wait_all_tasks_blocked();
            CHECK_FALSE(mutex.try_lock_shared());
            mutex.unlock_shared();
        });
        CHECK(mutex.try_lock_shared());
        mutex.unlock_shared();
    });
}

TEST_CASE("readers behind a writer that is cancelled come in") {
    on_each_runtime([] {
        weft::shared_mutex mutex;
        weft::cancel_scope scope;
        std::atomic<int> inside = 0;
        weft::with_task_group([&](weft::task_group& group) {
            std::shared_lock lock(mutex);
            group.start_soon([&] { scope.run([&] { mutex.lock(); }); });
            weft::wait_all_tasks_blocked();
            for (int reader = 0; reader < 3; ++reader)
                group.start_soon([&] {
                    std::shared_lock const own(mutex);
                    ++inside;
                });
            weft::wait_all_tasks_blocked();
            CHECK(inside == 0);
            scope.cancel();
            weft::wait_all_tasks_blocked();
            CHECK(inside == 3);
        });
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("unlock() against cancel(): nobody is left waiting") {
    often_on_each_runtime(60, [] {
        weft::shared_mutex mutex;
        weft::cancel_scope scope;
        std::atomic<int> served = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 3; ++task) {
                group.start_soon([&] {
                    std::unique_lock const lock(mutex);
                    weft::lowlevel::cancel_shielded_checkpoint();
                    ++served;
                });
                group.start_soon([&] {
                    std::shared_lock const lock(mutex);
                    ++served;
                });
            }
            group.start_soon([&] { scope.run([&] { std::unique_lock const lock(mutex); }); });
            group.start_soon([&] { scope.cancel(); });
        });
        CHECK(served == 6);
        CHECK(mutex.try_lock());
        mutex.unlock();
    });
}

TEST_CASE("with as many readers as it can count the next one waits until one has left") {
    on_each_runtime([] {
        weft::shared_mutex mutex;
        readers_inside(mutex) = std::numeric_limits<std::uint32_t>::max() - 1;
        mutex.lock_shared();
        weft::test::check(!mutex.try_lock_shared(), "no more than it can count");
        weft::test::check(!mutex.try_lock(), "and no writer beside them");
        std::atomic<bool> entered = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                mutex.lock_shared();
                entered = true;
            });
            weft::wait_all_tasks_blocked();
            CHECK_FALSE(entered);
            mutex.unlock_shared();
        });
        CHECK(entered);
        weft::test::check(!mutex.try_lock_shared(), "as many as before");
    });
}

TEST_CASE("misuse is told") {
    on_each_runtime([] {
        weft::shared_mutex mutex;
        CHECK(throws<std::logic_error>([&] { mutex.unlock(); }));
        CHECK(throws<std::logic_error>([&] { mutex.unlock_shared(); }));
        mutex.lock();
        CHECK(throws<std::logic_error>([&] { mutex.lock(); }));
        CHECK(throws<std::logic_error>([&] { mutex.lock_shared(); }));
        CHECK(throws<std::logic_error>([&] { mutex.unlock_shared(); }));
        mutex.unlock();
    });
}

TEST_CASE("LK8: a writer that ends without unlocking fails in checked builds; one that was let in later, too") {
    if (!weft::test::finds_mistakes) return;
    on_each_runtime([] {
        for (bool const waits : {false, true}) {
            weft::shared_mutex mutex;
            weft::cancel_scope scope;
            int failures = 0;
            try {
                weft::with_task_group([&](weft::task_group& group) {
                    if (waits) mutex.lock();
                    group.start_soon([&] { mutex.lock(); });
                    weft::wait_all_tasks_blocked();
                    if (waits) mutex.unlock();
                });
            } catch (weft::exception_group const& failed) {
                failed.handle([&](std::logic_error const&) { ++failures; });
            }
            weft::test::check(failures == 1, "its failure is told");
        }
    });
}

TEST_CASE("LK8: a writer that unlocks, or unlocks through a guard, is not reported") {
    on_each_runtime([] {
        weft::shared_mutex mutex;
        weft::with_task_group([&](weft::task_group& group) {
            weft::test::check(mutex.try_lock(), "it is free");
            mutex.unlock();
            for (int writer = 0; writer < 3; ++writer)
                group.start_soon([&] {
                    std::unique_lock const guard(mutex);
                    weft::lowlevel::checkpoint();
                });
        });
    });
}

TEST_CASE("LK10: what an ended task has left locked does not belong to a later task") {
    weft::shared_mutex mutex; // beyond the end of the run, too
    bool reported = false;
    try {
        weft::run({.workers = 1}, [&] { mutex.lock(); });
    } catch (std::logic_error const&) { // the task's failure (LK8)
        reported = true;
    }
    CHECK(reported == weft::test::finds_mistakes);
    auto const is_a_stranger = [&] {
        weft::test::check(!mutex.try_lock() && !mutex.try_lock_shared(), "locked by another one");
        weft::test::check_throws<std::logic_error>([&] { mutex.unlock(); }, "it is not its own");
    };
    on_each_runtime([&] {
        is_a_stranger();
        for (int task = 0; task < 10; ++task) // one after the other, in the same control blocks
            weft::with_task_group([&](weft::task_group& group) { group.start_soon(is_a_stranger); });
    });
}

TEST_SUITE_END();
