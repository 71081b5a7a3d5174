#include "support/child_process.hpp"
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
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <sstream>
#include <utility>

#include <sys/wait.h>
#include <unistd.h>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

// What is left behind where memory runs out: this program lets one of its own requests fail.

namespace {

// For what a process makes once: each request fails in a new process, until one is not needed any more.
// The attempt says whether it was, and aborts where something is wrong.
void let_each_request_fail(bool (*attempt)(int request)) {
    bool came_through = false;
    for (int request = 1; !came_through && request < 300; ++request) {
        std::fflush(stdout);
        ::pid_t const child = ::fork();
        if (child == 0) {
            ::alarm(20);
            ::_exit(attempt(request) ? 1 : 0);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        if (!WIFEXITED(status)) std::printf("request %d: signal %d\n", request, WTERMSIG(status));
        came_through = WIFEXITED(status) && WEXITSTATUS(status) == 1;
    }
    std::puts(came_through ? "came through" : "too many requests");
}

void check_each_request(char const* program) {
    child_end const end = run_child(program);
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("came through"));
    CHECK_FALSE(end.says("signal"));
}

// Of the calling thread. From here on none fails; true: none has.
bool end_of_failure() {
    return std::exchange(requests_until_failure, 0) > 0;
}

bool cancelled_start(int request) {
    bool came_through = false;
    run({.workers = 1}, [&] {
        auto const held = std::make_shared<int>(7);
        auto const note_end = [&] {
            came_through = end_of_failure();
            if (held.use_count() != 1) std::abort(); // a child is not done
        };
        with_task_group([&](task_group& group) {
            cancel_scope scope;
            scope.run([&] {
                scope.cancel();
                requests_until_failure = request;
                try {
                    group.start([held](task_status<>&) { shielded([] { lowlevel::checkpoint(); }); });
                } catch (std::bad_alloc const&) {
                    note_end();
                } catch (cancelled const&) {
                    note_end();
                    throw;
                }
            });
        });
    });
    return came_through;
}
child_program const start_program("cancelled_start", [] { let_each_request_fail(cancelled_start); });

} // namespace

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

TEST_CASE("S9: start() by a cancelled caller leaves no child at work, where there is no memory to say so, too") {
    check_each_request("cancelled_start");
}

TEST_SUITE_END();
