#include <weft/sync/event.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/sync/semaphore.hpp>

#include <atomic>
#include <iterator>
#include <memory>
#include <thread>
#include <vector>

TEST_SUITE_BEGIN("sync.event");

TEST_CASE("EV1: set() wakes everybody, and a second call changes nothing") {
    on_each_runtime([] {
        weft::event gate;
        std::atomic<int> passed = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int waiter = 0; waiter < 20; ++waiter)
                group.start_soon([&] {
                    gate.wait();
                    ++passed;
                });
            weft::wait_all_tasks_blocked();
            CHECK(passed == 0);
            CHECK_FALSE(gate.is_set());
            gate.set();
            gate.set();
            CHECK(gate.is_set());
        });
        CHECK(passed == 20);
    });
}

TEST_CASE("EV2: wait() on a set event returns at once, but not in a cancelled scope") {
    on_each_runtime([] {
        weft::event gate;
        gate.set();
        gate.wait();
        gate.wait();
        weft::cancel_scope scope;
        bool came_through = false;
        scope.run([&] {
            scope.cancel();
            gate.wait();
            came_through = true;
        });
        CHECK_FALSE(came_through);
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("EV2, TR81: wait() on a set event is fine inside no_suspend, the first time and later") {
    on_each_runtime([] {
        weft::event gate;
        gate.set();
        weft::no_suspend const ban;
        gate.wait();
        gate.wait();
        CHECK(gate.is_set());
    });
}

TEST_CASE("EV2: a wait that ended by set() returns, although a cancellation comes before it runs") {
    on_each_runtime([] {
        weft::event gate;
        weft::cancel_scope scope;
        std::atomic<bool> returned = false;
        std::atomic<bool> then_cancelled = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    gate.wait();
                    returned = true;
                    try {
                        weft::lowlevel::checkpoint();
                    } catch (weft::cancelled const&) {
                        then_cancelled = true;
                        throw;
                    }
                });
            });
            weft::wait_all_tasks_blocked();
            gate.set();
            scope.cancel();
        });
        CHECK(returned);
    });
}

TEST_CASE("EV2: with one worker the cancellation that came second is raised by the next call") {
    weft::run({.backend = "sim"}, [] {
        weft::event gate;
        weft::cancel_scope scope;
        bool returned = false;
        bool went_on = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    gate.wait();
                    returned = true;
                    weft::lowlevel::checkpoint();
                    went_on = true;
                });
            });
            weft::wait_all_tasks_blocked();
            gate.set();
            scope.cancel();
        });
        CHECK(returned);
        CHECK_FALSE(went_on);
    });
}

TEST_CASE("EV3: statistics count who waits, and nobody once set() has run") {
    on_each_runtime([] {
        weft::event gate;
        weft::with_task_group([&](weft::task_group& group) {
            for (int waiter = 0; waiter < 3; ++waiter)
                group.start_soon([&] { gate.wait(); });
            weft::wait_all_tasks_blocked();
            CHECK(gate.statistics().tasks_waiting == 3);
            gate.set();
            CHECK(gate.statistics().tasks_waiting == 0);
        });
    });
}

TEST_CASE("EV4: an event that was set before the run is set inside") {
    weft::event gate;
    gate.set();
    on_each_runtime([&] { gate.wait(); });
}

TEST_CASE("EV5: cancelling one waiter leaves the others waiting") {
    on_each_runtime([] {
        weft::event gate;
        weft::cancel_scope scope;
        std::atomic<int> passed = 0;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                gate.wait();
                ++passed;
            });
            group.start_soon([&] {
                scope.run([&] {
                    gate.wait();
                    ++passed;
                });
            });
            group.start_soon([&] {
                gate.wait();
                ++passed;
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            weft::wait_all_tasks_blocked();
            CHECK(passed == 0);
            CHECK(gate.statistics().tasks_waiting == 2);
            gate.set();
        });
        CHECK(passed == 2);
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("EV5: from a long queue any may leave and others come; those who stay are all woken") {
    on_each_runtime([] {
        constexpr int waiters = 60;
        // Who leaves: the first, the last, some in between, neighbours; some while others come.
        constexpr int leavers[] = {0, 59, 1, 30, 29, 31, 58, 12, 20};
        weft::event gate;
        std::vector<weft::cancel_scope> scopes(waiters);
        std::atomic<int> passed = 0;
        weft::with_task_group([&](weft::task_group& group) {
            auto const come = [&](int number) {
                group.start_soon([&, number] {
                    passed += scopes[std::size_t(number)].run([&] { gate.wait(); });
                });
                weft::wait_all_tasks_blocked();
            };
            for (int number = 0; number < waiters / 2; ++number)
                come(number);
            scopes[15].cancel();
            for (int number = waiters / 2; number < waiters; ++number) {
                come(number);
                if (number == 40) scopes[39].cancel(), scopes[40].cancel();
            }
            for (int const leaver : leavers)
                scopes[std::size_t(leaver)].cancel();
            weft::wait_all_tasks_blocked();
            CHECK(passed == 0);
            CHECK(gate.statistics().tasks_waiting == waiters - std::size(leavers) - 3);
            gate.set();
        });
        CHECK(passed == waiters - int(std::size(leavers)) - 3);
    });
}

TEST_CASE("EV5: set() against cancel(): each waiter either passes or is cancelled") {
    often_on_each_runtime(100, [] {
        auto const gate = std::make_unique<weft::event>();
        weft::cancel_scope scopes[2];
        std::atomic<int> passed = 0;
        std::atomic<int> cut_short = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (weft::cancel_scope& scope : scopes) {
                group.start_soon([&] {
                    if (scope.run([&] { gate->wait(); }))
                        ++passed;
                    else
                        ++cut_short;
                });
                group.start_soon([&] {
                    gate->wait();
                    ++passed;
                });
            }
            group.start_soon([&] { gate->set(); });
            group.start_soon([&] {
                for (weft::cancel_scope& scope : scopes)
                    scope.cancel();
            });
        });
        CHECK(passed + cut_short == 4);
        CHECK(gate->statistics().tasks_waiting == 0);
    });
}

TEST_CASE("EV6: the waiter may destroy the event as soon as it wakes") {
    often_on_each_runtime(200, [] {
        auto gate = std::make_unique<weft::event>();
        weft::event& named = *gate;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { named.set(); });
            gate->wait();
            gate.reset();
        });
    });
}

TEST_CASE("EV6: an OS thread may set the event, and its waiter destroy it") {
    on_each_runtime([] {
        for (int round = 0; round < 20; ++round) {
            auto gate = std::make_unique<weft::event>();
            std::thread setter([&named = *gate] { named.set(); });
            gate->wait();
            gate.reset();
            setter.join();
        }
    });
}

TEST_CASE("M5: what was written before set() is seen after wait()") {
    often_on_each_runtime(100, [] {
        weft::event gate;
        int value = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int reader = 0; reader < 3; ++reader)
                group.start_soon([&] {
                    gate.wait();
                    if (value != 7) throw std::runtime_error("the write before set() was not seen");
                });
            group.start_soon([&] {
                value = 7;
                gate.set();
            });
        });
    });
}

TEST_CASE("M11: a pair of tasks that wake each other all the time keeps nobody from going on") {
    static constexpr int tasks = 700; // more than a worker's ring holds
    for (unsigned const workers : {1u, 2u})
        weft::run({.workers = workers}, [] {
            weft::event gate;
            std::atomic<int> passed = 0;
            std::atomic<bool> over = false;
            weft::semaphore ping(0), pong(0);
            weft::with_task_group([&](weft::task_group& group) {
                for (int task = 0; task < tasks; ++task)
                    group.start_soon([&] {
                        gate.wait();
                        ++passed;
                    });
                group.start_soon([&] {
                    while (!over) {
                        ping.acquire();
                        pong.release();
                    }
                });
                weft::wait_all_tasks_blocked();
                gate.set();
                for (int turn = 0; turn < 100'000 && passed != tasks; ++turn) {
                    ping.release();
                    pong.acquire();
                }
                CHECK(passed == tasks);
                over = true;
                ping.release();
            });
        });
}

TEST_CASE("wait() needs a task") {
    weft::event gate;
    CHECK(throws<weft::no_event_loop_error>([&] { gate.wait(); }));
}

TEST_SUITE_END();
