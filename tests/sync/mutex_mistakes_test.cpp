#include "each_runtime.hpp"
#include "support/held_locks.hpp"
#include "support/mistakes.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/condition_variable.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/mutex.hpp>

#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <string>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

// Runs the bodies as tasks; whether one of them failed for a mutex that it left locked. Nothing else fails.
template <class Body> bool reported_by_its_owner(Body&& body) {
    try {
        with_task_group(body);
    } catch (exception_group const& failed) {
        failed.handle([](std::logic_error const& error) {
            check(std::string(error.what()).find("ended without unlocking a mutex") != std::string::npos,
                  error.what());
        });
        return true;
    }
    return false;
}

bool refused(auto&& call) { return throws<broken_resource_error>(call); }

} // namespace

TEST_SUITE_BEGIN("sync.mutex_mistakes");

TEST_CASE("LK8: the owner that ends without unlocking fails in checked builds, waiters are refused") {
    often_on_each_runtime(10, [] {
        mutex lock;
        event locked, end;
        int refusals = 0;
        bool const reported = reported_by_its_owner([&](task_group& group) {
            shielded([&] {
                with_task_group([&](task_group& waiters) {
                    group.start_soon(task_options{.name = "owner"}, [&] {
                        lock.lock();
                        locked.set();
                        shielded([&] { end.wait(); });
                    });
                    locked.wait();
                    for (int waiter = 0; waiter < 5; ++waiter)
                        waiters.start_soon([&] {
                            bool const mine = refused([&] { lock.lock(); });
                            static std::mutex count;
                            std::lock_guard const guard(count);
                            refusals += mine;
                        });
                    wait_all_tasks_blocked();
                    check(lock.statistics().tasks_waiting == 5, "all of them wait");
                    end.set();
                });
            });
        });
        check(reported == finds_mistakes, "a std::logic_error in checked builds");
        check(refusals == 5, "each waiter is refused");
        check(refused([&] { lock.lock(); }) && refused([&] { lock.try_lock(); }), "and so is who comes later");
        check(refused([&] { lock.lock(); }), "for ever");
    });
}

TEST_CASE("LK8: the end of the owner against waiters that come and go: nobody waits for ever") {
    often_on_each_runtime(60, [] {
        std::deque<mutex> locks(3);
        (void)reported_by_its_owner([&](task_group& group) {
            shielded([&] {
                with_task_group([&](task_group& inner) {
                    group.start_soon([&] {
                        for (mutex& lock : locks)
                            lock.lock();
                        shielded([] { lowlevel::checkpoint(); });
                        locks[1].unlock();
                    });
                    for (int waiter = 0; waiter < 12; ++waiter)
                        inner.start_soon([&, waiter] {
                            mutex& lock = locks[std::size_t(waiter) % 3];
                            move_on_after(waiter % 4 == 0 ? duration(0) : duration::max(), [&] {
                                try {
                                    std::lock_guard const guard(lock);
                                    lowlevel::checkpoint();
                                } catch (broken_resource_error const&) {
                                }
                            });
                        });
                });
            });
        });
        check(!locks[1].locked(), "what was unlocked goes on working");
        for (std::size_t broken : {0u, 2u})
            check(refused([&] { locks[broken].lock(); }), "what was not is broken");
    });
}

TEST_CASE("LK8, TR81: what is left locked is refused inside no_suspend, too: nobody would wait for it") {
    on_each_runtime([] {
        mutex lock;
        (void)reported_by_its_owner([&](task_group& group) { group.start_soon([&] { lock.lock(); }); });
        no_suspend const ban;
        check(refused([&] { lock.try_lock(); }), "try_lock()");
        check(refused([&] { lock.lock(); }), "lock()");
    });
}

TEST_CASE("LK8: a handed-over mutex that is left locked counts for its new owner") {
    on_each_runtime([] {
        mutex lock;
        bool const reported = reported_by_its_owner([&](task_group& group) {
            lock.lock();
            group.start_soon([&] { lock.lock(); }); // is handed the mutex, and ends
            wait_all_tasks_blocked();
            lock.unlock();
        });
        check(reported == finds_mistakes, "the new owner fails");
        check(refused([&] { lock.lock(); }), "it is broken");
    });
}

TEST_CASE("LK8: a task that unlocks what it locked, also under a condition variable, is not reported") {
    on_each_runtime([] {
        mutex lock;
        condition_variable changed(lock);
        bool const reported = reported_by_its_owner([&](task_group& group) {
            for (int task = 0; task < 3; ++task)
                group.start_soon([&] {
                    std::unique_lock guard(lock);
                    move_on_after(1ms, [&] { changed.wait(); });
                    changed.notify();
                    guard.unlock();
                    if (guard.try_lock()) guard.unlock();
                    guard.release();
                });
        });
        check(!reported, "nothing is left locked");
        lock.lock();
        lock.unlock();
    });
}

TEST_CASE("LK8, CD2: a wait whose mutex is left locked meanwhile is refused, and its guard unlocks nothing") {
    on_each_runtime([] {
        mutex lock;
        condition_variable changed(lock);
        std::atomic<int> refusals = 0;
        bool const reported = reported_by_its_owner([&](task_group& group) {
            shielded([&] {
                with_task_group([&](task_group& waiters) {
                    for (int waiter = 0; waiter < 2; ++waiter) {
                        waiters.start_soon([&] {
                            refusals += refused([&] {
                                std::unique_lock const guard(lock);
                                changed.wait();
                            });
                        });
                        wait_all_tasks_blocked();
                    }
                    group.start_soon([&] {
                        lock.lock();
                        changed.notify(); // the other one is cut short
                        shielded([&] {
                            waiters.cancel();
                            wait_all_tasks_blocked();
                        });
                    });
                });
            });
        });
        check(reported == finds_mistakes, "by the one that ended with it");
        check(refusals == 2, "notified or cancelled");
        lock.unlock(); // whose it was has ended
        check(refused([&] { lock.lock(); }), "broken as before");
    });
}

TEST_CASE("LK8: a task that holds as many mutexes as it can count is refused one more") {
    run([] {
        std::deque<mutex> locks(65'536);
        for (std::size_t number = 0; number + 1 < locks.size(); ++number)
            locks[number].lock();
        mutex& last = locks.back();
        CHECK_THROWS_AS(last.lock(), std::length_error);
        CHECK_THROWS_AS(last.try_lock(), std::length_error);
        CHECK_FALSE(last.locked());
        locks.front().unlock();
        last.lock();
        for (std::size_t number = 1; number < locks.size(); ++number)
            locks[number].unlock();
        CHECK_FALSE(last.locked());
    });
}

TEST_CASE("LK8: a task may hold many mutexes, and all of them count when it ends") {
    run([] {
        std::deque<mutex> locks(300);
        bool const reported = reported_by_its_owner([&](task_group& group) {
            group.start_soon([&] {
                for (mutex& each : locks)
                    each.lock();
                for (int number = 256; number < 300; ++number)
                    locks[std::size_t(number)].unlock();
            });
        });
        CHECK(reported == finds_mistakes);
        int refusals = 0;
        event end;
        with_task_group([&](task_group& group) {
            for (int other = 0; other < 1000; ++other) // none of them passes for the owner
                group.start_soon([&] { end.wait(); });
            for (int number = 0; number < 256; ++number)
                refusals += refused([&] { locks[std::size_t(number)].try_lock(); });
            end.set();
        });
        CHECK(refusals == 256);
        CHECK(locks[299].try_lock());
        locks[299].unlock();
    });
}

TEST_CASE("LK8: the first task's own lock, left locked, fails the run in checked builds") {
    mutex lock;
    bool const failed = throws<std::logic_error>([&] { run([&] { lock.lock(); }); });
    CHECK(failed == finds_mistakes);
    bool refusal = false;
    run([&] { refusal = refused([&] { lock.lock(); }); });
    CHECK(refusal);
}

TEST_CASE("LK8: a report names who holds the mutex that a task waits for") {
    std::string report;
    try {
        run({.backend = "sim"}, [] {
            mutex lock;
            lock.lock();
            with_task_group([&](task_group& group) {
                group.start_soon(task_options{.name = "waiter"}, [&] { std::lock_guard const guard(lock); });
                group.start_soon(task_options{.name = "owner"}, [] { sleep_forever(); });
                wait_all_tasks_blocked();
                lock.unlock(); // to the waiter, which is gone again
                std::lock_guard const guard(lock);
                group.start_soon(task_options{.name = "second"}, [&] { std::lock_guard const own(lock); });
                sleep_forever();
            });
        });
    } catch (deadlock_error const& error) {
        report = error.what();
    }
    auto const line = report.find("- second (");
    REQUIRE(line != std::string::npos);
    CHECK(report.find("waiting in mutex.lock, held by task '", line) < report.find('\n', line));
}

TEST_CASE("LK10: tasks that wait for each other's mutexes are reported in checked builds, as a cycle") {
    mistakes_heard const heard;
    run_sim(0, [] {
        std::deque<mutex> locks(3);
        move_on_after(1s, [&] {
            with_task_group([&](task_group& group) {
                for (std::size_t number = 0; number < 3; ++number)
                    group.start_soon(task_options{.name = "philosopher " + std::to_string(number)}, [&, number] {
                        std::lock_guard const left(locks[number]);
                        lowlevel::checkpoint();
                        std::lock_guard const right(locks[(number + 1) % 3]);
                    });
            });
        });
    });
    CHECK(heard.get().size() == (finds_mistakes ? 1 : 0));
    for (char const* name : {"'philosopher 0'", "'philosopher 1'", "'philosopher 2'"})
        CHECK(heard.count(name) == heard.get().size());
    CHECK(heard.count("tasks wait for each other's mutexes: 'philosopher 2', which waits for "
                      "'philosopher 0', which waits for 'philosopher 1', which waits for the first again") ==
          heard.get().size());
}

TEST_CASE("LK10: with several workers a cycle is reported, too, and a queue is not taken for one") {
    for (unsigned const workers : {1u, 2u, 4u}) {
        mistakes_heard const heard;
        run({.workers = workers}, [] {
            mutex first, second;
            event has_first, has_second;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    std::lock_guard const one(first);
                    has_first.set();
                    has_second.wait();
                    std::lock_guard const other(second);
                });
                group.start_soon([&] {
                    std::lock_guard const one(second);
                    has_second.set();
                    has_first.wait();
                    std::lock_guard const other(first);
                });
                wait_all_tasks_blocked();
                group.cancel();
            });
        });
        CHECK((heard.count("mutexes") > 0) == finds_mistakes);
    }
    mistakes_heard const heard;
    on_each_runtime([] {
        mutex first, second;
        with_task_group([&](task_group& group) {
            for (int task = 0; task < 10; ++task)
                group.start_soon([&] {
                    for (int times = 0; times < 10; ++times) {
                        std::scoped_lock const both(first, second);
                        lowlevel::checkpoint();
                    }
                });
        });
    });
    CHECK(heard.count("mutexes") == 0);
}

TEST_CASE("TR81: an OS lock that is held across a suspension is reported with both places") {
    watch_held_locks();
    mistakes_heard const heard;
    run_sim(0, [] {
        std::mutex os_lock;
        {
            std::lock_guard const guard(os_lock);
        }
        lowlevel::checkpoint();
        {
            std::lock_guard const guard(os_lock); // nobody else wants it
            lowlevel::checkpoint();
        }
        lowlevel::checkpoint();
    });
    CHECK(heard.count("OS lock") == (finds_held_locks ? 1 : 0));
    CHECK(heard.count("suspends in lowlevel::checkpoint while its thread holds an OS lock taken in ") ==
          heard.count("OS lock"));
}

TEST_SUITE_END();
