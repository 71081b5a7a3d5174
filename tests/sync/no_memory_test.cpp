#include "each_runtime.hpp"
#include "support/failing_memory.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/combinators.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/from_thread.hpp>
#include <weft/sync/portal.hpp>
#include <weft/sync/to_thread.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <latch>
#include <memory>
#include <new>
#include <stdexcept>
#include <variant>

#include <pthread.h>

// What is left behind where memory runs out: this program lets one of its own requests fail.

TEST_SUITE_BEGIN("sync.no_memory");

using weft::test::requests_until_failure;

using namespace std::chrono_literals;

TEST_CASE("T2, T9: a call for which there is no memory runs not at all and leaves no thread, no token") {
    bool came_through = false;
    int request = 0;
    while (!came_through) {
        ++request;
        bool refused = false;
        weft::run({.workers = 1}, [&] {
            weft::capacity_limiter tokens(1);
            bool ran = false;
            requests_until_failure = request;
            try {
                weft::to_thread::run_sync({.limiter = &tokens}, [&] { ran = true; });
            } catch (std::bad_alloc const&) {
                refused = true;
            }
            came_through = requests_until_failure > 0;
            requests_until_failure = 0;
            CHECK(ran != refused);
            CHECK(tokens.borrowed_tokens() == 0);
        }); // joins each thread of the pool
        CHECK(refused != came_through);
    }
    CHECK(request > 5);
}

TEST_CASE("T2, T3: a call under a deadline for which there is no memory has not run") {
    bool came_through = false;
    for (int request = 1; !came_through; ++request) {
        bool refused = false;
        std::atomic<bool> ran = false; // outlives the threads, whatever the call does
        weft::run({.workers = 1}, [&] {
            weft::to_thread::run_sync([] {}); // there is a thread
            try {
                weft::fail_after(1h, [&] {
                    requests_until_failure = request;
                    weft::to_thread::run_sync([&] { ran = true; });
                });
            } catch (std::bad_alloc const&) {
                refused = true;
            }
            came_through = requests_until_failure > 0;
            requests_until_failure = 0;
        });
        CHECK(ran != refused);
    }
}

TEST_CASE("T3: a cancellation that there is no memory for does not end a call either") {
    bool came_through = false;
    for (int request = 1; !came_through; ++request) {
        std::latch gate(1);
        std::atomic<bool> ran = false;
        bool left_before = false;
        bool told = false;
        weft::run({.workers = 1}, [&] {
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    scope.run([&] {
                        try {
                            weft::to_thread::run_sync([&] {
                                gate.wait();
                                ran = true;
                            });
                        } catch (std::bad_alloc const&) { // looked at below
                        }
                        left_before = !ran;
                        weft::lowlevel::checkpoint();
                    });
                    told = scope.cancelled_caught();
                });
                weft::wait_all_tasks_blocked();
                scope.cancel();
                requests_until_failure = request;
                weft::lowlevel::cancel_shielded_checkpoint(); // the call hears of it
                came_through = requests_until_failure > 0;
                requests_until_failure = 0;
                gate.count_down();
            });
        });
        CHECK_FALSE(left_before);
        CHECK(told);
    }
}

TEST_CASE("T3, F7: a thread hears of a cancellation also where there is no memory for it") {
    bool came_through = false;
    for (int request = 1; !came_through; ++request) {
        std::latch gate(1);
        bool told = false;
        weft::run({.workers = 1}, [&] {
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    scope.run([&] {
                        weft::to_thread::run_sync([&] {
                            gate.wait();
                            try {
                                weft::from_thread::check_cancelled();
                            } catch (...) { // or that there was no memory
                                told = true;
                            }
                        });
                    });
                });
                weft::wait_all_tasks_blocked();
                scope.cancel();
                requests_until_failure = request;
                weft::lowlevel::cancel_shielded_checkpoint(); // the call hears of it
                came_through = requests_until_failure > 0;
                requests_until_failure = 0;
                gate.count_down();
            });
        });
        CHECK(told);
    }
}

TEST_CASE("T3, T4: a call that may be abandoned is left also where there is no memory for the cancellation") {
    bool came_through = false;
    for (int request = 1; !came_through; ++request) {
        auto const gate = std::make_shared<std::latch>(1);
        weft::run({.workers = 1}, [&] {
            weft::cancel_scope scope;
            weft::event left;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    try {
                        scope.run([&] {
                            weft::to_thread::run_sync({.abandon_on_cancel = true}, [gate] { gate->wait(); });
                        });
                    } catch (std::bad_alloc const&) {
                    }
                    left.set();
                });
                weft::wait_all_tasks_blocked();
                scope.cancel();
                requests_until_failure = request;
                weft::lowlevel::cancel_shielded_checkpoint(); // the call hears of it
                came_through = requests_until_failure > 0;
                requests_until_failure = 0;
                left.wait();
                gate->count_down();
            });
        });
    }
}

TEST_CASE("B10: a portal for which there is no memory is refused, and the next one works") {
    bool came_through = false;
    for (int request = 1; !came_through; ++request) {
        requests_until_failure = request;
        try {
            auto const portal = weft::from_thread::start_blocking_portal({.workers = 1});
            int const answer = portal->call([] { return 5; });
            CHECK(answer == 5);
        } catch (std::bad_alloc const&) {
        }
        came_through = requests_until_failure > 0;
        requests_until_failure = 0;
    }
}

TEST_CASE("T9, T14: a thread that ends itself needs no memory to leave the pool") {
    for (int round = 0; round < 3; ++round)
        weft::run({.workers = 1}, [] {
            CHECK_THROWS_AS(weft::to_thread::run_sync([] {
                                requests_until_failure = 2; // one for the text of the error
                                ::pthread_exit(nullptr);
                            }),
                            std::runtime_error);
            CHECK(weft::to_thread::run_sync([] { return 5; }) == 5);
        });
}

TEST_CASE("A decided race() cancels those who lost, also without memory to say why") {
    bool came_through = false;
    for (int request = 1; !came_through; ++request)
        weft::run({.backend = "sim"}, [&] {
            auto const first = weft::race(
                [request] {
                    requests_until_failure = request;
                    return 5;
                },
                [] {
                    weft::sleep_forever();
                    return 6;
                });
            came_through = requests_until_failure > 0;
            requests_until_failure = 0;
            CHECK(std::get<0>(first) == 5);
        });
}
