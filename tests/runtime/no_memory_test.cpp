#include "support/failing_memory.hpp"
#include "support/gate.hpp"
#include "support/mistakes.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <thread>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

// What is left behind where memory runs out: this program lets one of its own requests fail.

TEST_SUITE_BEGIN("runtime.no_memory");

TEST_CASE("TI2: a look at the tasks for which there is no memory keeps none of them, nor what they gave") {
    auto const result = std::make_shared<int>(7);
    auto const look = [&result](int request, void (*call)()) {
        bool came_through = false;
        run({.workers = 1}, [&] {
            gate go;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 3; ++task)
                    group.create_task([&] {
                        go.wait();
                        return result;
                    });
                wait_all_tasks_blocked();
                requests_until_failure = request;
                try {
                    call();
                } catch (std::bad_alloc const&) {
                }
                came_through = requests_until_failure > 0;
                requests_until_failure = 0;
                go.open();
            });
        });
        CHECK(result.use_count() == 1);
        return came_through;
    };
    int request = 1;
    while (!look(request, [] { get_running_tasks(); }))
        ++request;
    CHECK(request > 5);
    for (request = 1; request < 60; ++request)
        look(request, [] {
            std::ostringstream out;
            dump_tasks(out);
        });
}

TEST_CASE("C24: deadlines for which there was no memory at first count from the next call on") {
    bool came_through = false;
    int request = 0;
    while (!came_through) {
        ++request;
        run({.workers = 1}, [&] {
            bool refused = false;
            bool const finished = move_on_after(1ms, [&] {
                move_on_after(10h, [&] {
                    requests_until_failure = request;
                    try {
                        lowlevel::checkpoint_if_cancelled();
                    } catch (std::bad_alloc const&) {
                        refused = true;
                    }
                    came_through = requests_until_failure > 0;
                    requests_until_failure = 0;
                    sleep(10h);
                });
            });
            CHECK_FALSE(finished);
            CHECK(refused != came_through);
        });
    }
    CHECK(request > 1);
}

namespace {

// False: there was no memory.
bool set_without_memory(cancel_scope& scope, time_point when) {
    requests_until_failure = 1;
    bool done = true;
    try {
        scope.set_deadline(when);
    } catch (std::bad_alloc const&) {
        done = false;
    }
    requests_until_failure = 0;
    return done;
}

} // namespace

TEST_CASE("C24: a deadline for which there is no memory is not set, and the one before it stays") {
    run({.workers = 1}, [] {
        cancel_scope outer;
        cancel_scope scope;
        outer.run([&] {
            scope.run([&] {
                lowlevel::checkpoint(); // from here on a deadline has its timer at once
                CHECK_FALSE(set_without_memory(scope, current_time() + 10h));
                CHECK(scope.deadline() == time_point::max());
                outer.set_deadline(current_time() + 20h); // in all the room that there is
                CHECK_FALSE(set_without_memory(scope, current_time() + 10h));
                CHECK(scope.deadline() == time_point::max());
                scope.set_deadline(current_time() + 10h);
                CHECK(set_without_memory(scope, current_time() + 1ms));
                sleep_forever();
            });
        });
        CHECK(scope.cancelled_caught());
        CHECK_FALSE(outer.cancelled_caught());
    });
}

TEST_CASE("C24: to move a deadline takes no memory, whichever thread does it") {
    std::array<cancel_scope, 2> scopes;
    std::array<bool, 2> moved{};
    run({.workers = 2}, [&] {
        std::atomic<unsigned> running = 0;
        with_task_group([&](task_group& group) {
            for (cancel_scope& scope : scopes)
                group.start_soon([&] {
                    ++running;
                    while (running != 2) {} // each on a worker of its own
                    no_migrate const stay;
                    scope.set_deadline(current_time() + 10h);
                    scope.run([] { sleep_forever(); });
                });
            wait_all_tasks_blocked();
            std::thread([&] {
                time_point const soon = time_point(std::chrono::steady_clock::now().time_since_epoch()) + 1ms;
                for (std::size_t number : {0, 1}) {
                    moved[number] = set_without_memory(scopes[number], soon);
                    if (!moved[number]) scopes[number].cancel();
                }
            }).join();
        });
    });
    for (std::size_t number : {0, 1}) {
        CHECK(moved[number]);
        CHECK(scopes[number].cancelled_caught());
        CHECK(scopes[number].cancel_reason().empty());
    }
}

TEST_CASE("M8: a cancellation that could not be thrown without memory was not swallowed") {
    mistakes_heard const heard;
    bool came_through = false;
    int request = 0;
    while (!came_through) {
        ++request;
        run({.workers = 1}, [&] {
            cancel_scope scope;
            scope.run([&] {
                scope.cancel("for a reason that has no room in the string itself");
                requests_until_failure = request;
                try {
                    lowlevel::checkpoint_if_cancelled();
                } catch (std::bad_alloc const&) {
                } catch (cancelled const&) {
                    came_through = requests_until_failure > 0;
                    requests_until_failure = 0;
                    throw;
                }
                requests_until_failure = 0;
                lowlevel::checkpoint_if_cancelled();
            });
            CHECK(scope.cancelled_caught());
        });
    }
    if (finds_mistakes) CHECK(request > 1);
    CHECK(heard.get().empty());
}

namespace {
int mistakes_told = 0;
}

TEST_CASE("M8: without memory to tell of it, a swallowed cancellation is not told") {
    auto const before = detail::listen_to_mistakes([](std::string const&) {
        requests_until_failure = 0;
        ++mistakes_told;
    });
    int request = 0;
    for (mistakes_told = 0; mistakes_told == 0 && request < 100;) {
        ++request;
        run({.workers = 1}, [&] {
            cancel_scope scope;
            scope.run([&] {
                scope.cancel("for a reason that has no room in the string itself");
                try {
                    lowlevel::checkpoint();
                } catch (cancelled const&) { // swallowed
                }
                requests_until_failure = request;
            });
            requests_until_failure = 0;
        });
    }
    detail::listen_to_mistakes(before);
    CHECK(mistakes_told == (finds_mistakes ? 1 : 0));
    if (finds_mistakes) CHECK(request > 1);
}

TEST_SUITE_END();
