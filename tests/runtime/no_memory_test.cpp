#include "support/address_space.hpp"
#include "support/child_process.hpp"
#include "support/failing_memory.hpp"
#include "support/gate.hpp"
#include "support/mistakes.hpp"
#include "support/old_cancellation.hpp"

#include "runtime/src/injection_queue.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iterator>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

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
child_program const start_program("cancelled_start",
                                  [] { let_each_request_fail(cancelled_start); });

bool passed_deadline(int request) {
    bool came_through = false;
    run({.workers = 1}, [&] {
        for (int turn = 0; turn < 2; ++turn) {
            cancel_scope scope;
            scope.set_deadline(current_time());
            if (turn == 0) requests_until_failure = request;
            scope.run([&] {
                if (turn == 0) {
                    came_through = end_of_failure();
                    if (!scope.cancel_called()) std::abort();
                }
                try {
                    lowlevel::checkpoint();
                } catch (cancelled const& told) {
                    bool const tells = std::strstr(told.reason(), "the deadline has passed") != nullptr;
                    if (turn == 1 && !tells) std::abort();
                    throw;
                }
            });
            if (!scope.cancelled_caught()) std::abort();
        }
    });
    return came_through;
}
child_program const deadline_program("passed_deadline",
                                     [] { let_each_request_fail(passed_deadline); });

// A group with a child that fails first, so that there is room for another failure. `fill` starts what
// fails without memory; all are to be told.
template <class Fill> bool other_failure(Fill&& fill) {
    bool came_through = false;
    run({.backend = "sim"}, [&] { // the tasks run in the order of their spawning
        try {
            with_task_group([&](task_group& group) {
                group.start_soon([] { throw 1; });
                fill(group);
                group.start_soon([&] { came_through = end_of_failure(); });
            });
            std::abort();
        } catch (exception_group const& failures) {
            if (failures.exceptions().size() != 2) std::abort();
        }
    });
    return came_through;
}

bool failing_child(int request) {
    return other_failure([&](task_group& group) {
        group.start_soon([&] {
            requests_until_failure = request;
            throw 2;
        });
    });
}
child_program const child_failure("failing_child", [] { let_each_request_fail(failing_child); });

bool child_without_stack(int request) {
    return other_failure([&](task_group& group) {
        allow_more_address_space(50 << 20);
        group.start_soon([&] { requests_until_failure = request; });
        group.start_soon({.stack_size = 64 << 20}, [] { std::abort(); });
    });
}
child_program const child_stack("child_without_stack",
                                [] { let_each_request_fail(child_without_stack); });

bool failing_body(int request) {
    bool came_through = false;
    run({.workers = 1}, [&] {
        try {
            with_task_group([&](task_group& group) {
                group.start_soon([] { throw 1; });
                try {
                    sleep_forever();
                } catch (cancelled const&) {
                    requests_until_failure = request;
                    throw 2;
                }
            });
            std::abort();
        } catch (exception_group const& failures) {
            if (failures.exceptions().size() != 2) std::abort();
        } catch (std::bad_alloc const&) { // for the group of them
        }
        came_through = end_of_failure();
    });
    return came_through;
}
child_program const body_failure("failing_body", [] { let_each_request_fail(failing_body); });

bool cancelled_host(int request) {
    bool came_through = false;
    run({.workers = 1}, [&] {
        auto const held = std::make_shared<int>(7);
        cancel_scope scope;
        scope.run([&] {
            with_task_group([&](task_group& group) {
                group.start_soon([held] { shielded([] { lowlevel::checkpoint(); }); });
                scope.cancel();
                try {
                    lowlevel::checkpoint_if_cancelled();
                } catch (cancelled const&) {
                    requests_until_failure = request;
                    throw;
                }
            });
        });
        came_through = end_of_failure();
        if (held.use_count() != 1) std::abort(); // the child is not done
    });
    return came_through;
}
child_program const host_cancellation("cancelled_host",
                                      [] { let_each_request_fail(cancelled_host); });

bool escaped_cancellation(int request) {
    bool came_through = false;
    run({.backend = "sim"}, [&] { // as above
        std::exception_ptr const old = old_cancellation();
        task_group group;
        move_on_after(10h, [&] {
            group.run([&] {
                group.start_soon([&] {
                    requests_until_failure = request;
                    std::rethrow_exception(old);
                });
                group.start_soon([&] { came_through = end_of_failure(); });
            });
        });
        if (!group.cancel_scope().cancel_called()) std::abort();
    });
    return came_through;
}
child_program const escape("escaped_cancellation",
                           [] { let_each_request_fail(escaped_cancellation); });

template <class Error, class Body> bool failing_run(run_options const& options, Body&& body) {
    try {
        run(options, body);
        std::abort();
    } catch (Error const&) {
    } catch (std::bad_alloc const&) {
    }
    return end_of_failure();
}
child_program const first_stack("first_task_without_stack", [] {
    for (char const* const backend : {"epoll", "sim"}) {
        static run_options options{.workers = 1, .stack_size = 64 << 20};
        options.backend = backend;
        let_each_request_fail([](int request) {
            allow_more_address_space(50 << 20);
            requests_until_failure = request;
            return failing_run<std::system_error>(options, [] { std::abort(); });
        });
    }
});
std::ptrdiff_t entries_of(char const* folder) {
    return std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator());
}

bool run_without_all_it_needs(run_options const& options, int request) {
    std::ptrdiff_t const descriptors = entries_of("/proc/self/fd");
    bool ran = false;
    requests_until_failure = request;
    try {
        run(options, [&] { ran = true; });
    } catch (std::system_error const& failure) {
        if (ran || failure.code().value() != ENOMEM) std::abort();
        bool const names_it = std::strstr(failure.what(), "no memory for the ") != nullptr ||
                              std::strstr(failure.what(), "no stack of ") != nullptr;
        if (!names_it) std::abort();
    }
    bool const came_through = end_of_failure();
    if (came_through && (!ran || request == 1)) std::abort();
    if (entries_of("/proc/self/fd") != descriptors) std::abort();
    while (entries_of("/proc/self/task") != 1) {} // a joined thread is there for a moment more
    ran = true;
    run(options, [&] { ran = false; }); // nothing was left locked, or in a list
    if (ran) std::abort();
    return came_through;
}
child_program const no_workers("run_without_all_it_needs", [] {
    let_each_request_fail([](int request) { return run_without_all_it_needs({.workers = 3}, request); });
});
child_program const no_sim("sim_without_all_it_needs", [] {
    let_each_request_fail(
        [](int request) { return run_without_all_it_needs({.backend = "sim", .workers = 3}, request); });
});
child_program const deadlock("deadlock", [] {
    let_each_request_fail([](int request) {
        return failing_run<deadlock_error>({.backend = "sim"}, [&] {
            requests_until_failure = request;
            sleep_forever();
        });
    });
});
child_program const first_cancelled("first_task_cancelled", [] {
    let_each_request_fail([](int request) {
        return failing_run<task_cancelled>({.workers = 1}, [&] {
            std::exception_ptr const old = old_cancellation();
            requests_until_failure = request;
            std::rethrow_exception(old);
        });
    });
});

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

TEST_CASE("M8: under sim a task that is ready runs, also without memory to queue it") {
    for (std::uint64_t const seed : {0, 5}) {
        int started = 0;
        std::atomic<int> ran = 0;
        run({.backend = "sim", .workers = 2, .seed = seed}, [&] {
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 1000; ++task) {
                    requests_until_failure = 1;
                    try {
                        group.start_soon([&] { ++ran; });
                        ++started;
                    } catch (std::bad_alloc const&) { // not started, and told
                    }
                    requests_until_failure = 0;
                }
            });
        });
        CHECK(started > 500);
        CHECK(ran == started);
    }
}

TEST_CASE("M11: what the queue had no memory for does not wait until that is empty, each time") {
    std::vector<detail::fiber> fibers(1000);
    detail::injection_queue queue(detail::injection_queue::producers::many);
    std::size_t pushed = 0;
    for (int round = 0; round < 3; ++round) {
        std::size_t const before = pushed;
        for (bool failed = false; !failed && pushed < 990; ++pushed) {
            requests_until_failure = 1;
            queue.push(fibers[pushed]);
            failed = requests_until_failure == 0;
            requests_until_failure = 0;
        }
        REQUIRE(pushed < 990);
        detail::fiber* const aside = &fibers[pushed - 1];
        for (int more = 0; more < 8; ++more)
            queue.push(fibers[pushed++]);
        detail::fiber* out[8];
        CHECK(queue.take(out, 8) == 8);
        CHECK(out[0] == aside);
        std::size_t taken = 8;
        while (std::size_t const more = queue.take(out, 8))
            taken += more;
        CHECK(taken == pushed - before);
        CHECK(queue.empty());
    }
}

TEST_CASE("C24: deadlines for which there was no memory at first count from the next call on") {
    bool came_through = false;
    int request = 0;
    while (!came_through) {
        ++request;
        run({.workers = 1}, [&] {
            bool refused = false;
            bool too_late = false; // the machine is slow, and the deadline has passed at the first call already
            bool const finished = move_on_after(1ms, [&] {
                move_on_after(10h, [&] {
                    requests_until_failure = request;
                    try {
                        lowlevel::checkpoint_if_cancelled();
                    } catch (std::bad_alloc const&) {
                        refused = true;
                    } catch (cancelled const&) {
                        requests_until_failure = 0;
                        too_late = true;
                        throw;
                    }
                    came_through = requests_until_failure > 0;
                    requests_until_failure = 0;
                    sleep(10h);
                });
            });
            CHECK_FALSE(finished);
            if (too_late)
                --request; // again
            else
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
        move_on_after(10h, [] {}); // the first deadline starts a thread, for which memory is asked, too
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

TEST_CASE("S9: start() by a cancelled caller leaves no child at work, also without memory to say so") {
    check_each_request("cancelled_start");
}

TEST_CASE("G10, G11: a failure for which there is no memory leaves its group all the same, which is cancelled") {
    bool came_through = false;
    for (int request = 1; !came_through; ++request) {
        bool failed = false;
        bool cut_short = true;
        run({.workers = 1}, [&] {
            try {
                with_task_group([&](task_group& group) {
                    group.start_soon([] { sleep_forever(); });
                    group.start_soon([request] {
                        wait_all_tasks_blocked();
                        requests_until_failure = request;
                        throw std::runtime_error("failure");
                    });
                });
                cut_short = false;
            } catch (exception_group const& errors) {
                failed = errors.exceptions().size() == 1;
            } catch (std::bad_alloc const&) { // none for a group of errors either
                failed = true;
            }
            came_through = requests_until_failure > 0;
            requests_until_failure = 0;
        });
        CHECK(failed);
        CHECK(cut_short);
    }
}

TEST_CASE("C20: a deadline that passes where there is no memory to say so cancels all the same") {
    check_each_request("passed_deadline");
}

TEST_CASE("G10, G11: failures are told and cancel the group, also without memory to say whose they are") {
    check_each_request("failing_child");
    check_each_request("failing_body");
}

TEST_CASE("G6: a group whose host was cancelled waits for its children, also without memory to say why") {
    check_each_request("cancelled_host");
}

TEST_CASE("E1: a deadlock under sim ends the run, also without memory to tell of it") {
    check_each_request("deadlock");
}

TEST_CASE("G13: an escaped cancellation cancels the group, also without memory for the reason") {
    check_each_request("escaped_cancellation");
}

TEST_CASE("G11: a task that gets no stack fails, also without memory to say so") {
    check_each_request("child_without_stack");
}

TEST_CASE("G11, E1: run() throws when its first task gets no stack, also without memory to say so") {
    check_each_request("first_task_without_stack");
}

TEST_CASE("E1: run() that gets no memory for its workers or its first task says so, and leaves nothing behind") {
    check_each_request("run_without_all_it_needs");
    check_each_request("sim_without_all_it_needs");
}

TEST_CASE("E1: run() throws when its first task ends by a cancellation, also without memory to say so") {
    check_each_request("first_task_cancelled");
}

TEST_SUITE_END();
