#include <weft/sync/from_thread.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/to_thread.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>

using namespace std::chrono_literals;

TEST_SUITE_BEGIN("sync.from_thread");

TEST_CASE("F1, F5: the function runs in the waiting task, and may wait") {
    on_each_runtime([] {
        auto const host = weft::get_current_task().id;
        auto const id = weft::to_thread::run_sync([] {
            return weft::from_thread::run([] {
                weft::sleep(1ms);
                weft::lowlevel::checkpoint();
                return weft::get_current_task().id;
            });
        });
        CHECK(id == host);
        CHECK(weft::to_thread::run_sync([] {
            return throws<std::domain_error>(
                [] { weft::from_thread::run([] { throw std::domain_error("no"); }); });
        }));
    });
}

TEST_CASE("F1: a thread may come back often, and send calls to further threads") {
    on_each_runtime([] {
        int const sum = weft::to_thread::run_sync([] {
            int total = 0;
            for (int step = 0; step < 20; ++step)
                total += weft::from_thread::run([](int number) {
                    return weft::to_thread::run_sync([number] { return number; });
                }, step);
            return total;
        });
        CHECK(sum == 190);
    });
}

TEST_CASE("F2: run_sync() is not reached by cancellation") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        std::atomic<bool> ran = false;
        scope.run([&] {
            weft::to_thread::run_sync([&] {
                weft::from_thread::run_sync([&] {
                    scope.cancel();
                    weft::lowlevel::checkpoint_if_cancelled();
                    ran = true;
                });
            });
        });
        CHECK(ran);
    });
}

TEST_CASE("F3: elsewhere there is no way in") {
    CHECK(throws<weft::no_event_loop_error>([] { weft::from_thread::run([] {}); }));
    CHECK(throws<weft::no_event_loop_error>([] { weft::from_thread::check_cancelled(); }));
    on_each_runtime(
        [] { CHECK(throws<weft::no_event_loop_error>([] { weft::from_thread::run_sync([] {}); })); });
}

TEST_CASE("F4: the function is under the scopes of the waiting task, whose scope takes the cancellation") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        std::atomic<bool> in_function = false;
        std::atomic<bool> in_thread = false;
        scope.run([&] {
            weft::to_thread::run_sync([&] {
                try {
                    weft::from_thread::run([&] {
                        scope.cancel();
                        try {
                            weft::sleep_forever();
                        } catch (weft::cancelled const&) {
                            in_function = true;
                            throw;
                        }
                    });
                } catch (weft::cancelled const&) {
                    in_thread = true;
                    throw;
                }
            });
        });
        CHECK(in_function);
        CHECK(in_thread);
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("F7: check_cancelled() throws once the waiting task is cancelled, and its scope takes it") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([] {
                    weft::to_thread::run_sync([] {
                        for (;;) {
                            weft::from_thread::check_cancelled();
                            std::this_thread::yield();
                        }
                    });
                });
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
        });
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("F7: an outer cancellation that a shield keeps out is not seen in the thread") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        std::atomic<bool> seen = false;
        scope.run([&] {
            weft::shielded([&] {
                weft::to_thread::run_sync([&] {
                    scope.cancel();
                    try {
                        weft::from_thread::check_cancelled();
                        weft::from_thread::run([] { weft::lowlevel::checkpoint(); });
                    } catch (weft::cancelled const&) {
                        seen = true;
                        throw;
                    }
                });
            });
        });
        CHECK_FALSE(seen);
    });
}

TEST_CASE("F6, F7: under abandon_on_cancel what the task does is finished, then it leaves") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        std::atomic<bool> finished = false;
        auto const told = std::make_shared<std::atomic<int>>(0);
        scope.run([&] {
            weft::to_thread::run_sync({.abandon_on_cancel = true}, [&finished, &scope, told] {
                weft::from_thread::run([&] {
                    scope.cancel();
                    weft::lowlevel::checkpoint();
                    finished = true;
                });
                for (;;) { // nothing of the test's frame from here on
                    try {
                        weft::from_thread::check_cancelled();
                    } catch (weft::cancelled const&) {
                        *told = 1;
                        throw;
                    }
                    std::this_thread::yield();
                }
            });
        });
        CHECK(finished);
        CHECK(scope.cancelled_caught());
        while (*told == 0)
            std::this_thread::yield();
    });
}

TEST_CASE("F9, F11: requests against cancellation: every thread gets an answer") {
    often_on_each_runtime(10, [] {
        for (bool abandon : {false, true}) {
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                for (int call = 0; call < 2; ++call)
                    group.start_soon([&scope, abandon] {
                        weft::move_on_after(weft::duration::max(), [&] {
                            weft::cancel_scope own;
                            own.run([&] {
                                weft::to_thread::run_sync({.abandon_on_cancel = abandon}, [] {
                                    try {
                                        for (int step = 0; step < 5; ++step)
                                            weft::from_thread::run(
                                                [] { weft::lowlevel::checkpoint(); });
                                    } catch (weft::run_finished_error const&) {
                                        return; // abandoned
                                    }
                                });
                            });
                        });
                    });
                group.start_soon([&scope] { scope.cancel(); });
                weft::lowlevel::checkpoint();
                group.cancel();
            });
        }
    });
}

TEST_SUITE_END();
