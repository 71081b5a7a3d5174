#include "support/failing_memory.hpp"
#include "support/gate.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <new>
#include <sstream>

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

TEST_SUITE_END();
