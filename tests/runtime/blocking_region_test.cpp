#include <weft/runtime/blocking_region.hpp>

#include <weft/runtime/context_var.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>

#include "support/child_process.hpp"
#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <latch>
#include <semaphore>
#include <stdexcept>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

run_test_options const on_threads{.seeds = {}};

void leave_region_in_fork(char const* backend) {
    run({.backend = backend, .workers = 2}, [] {
        blocking_region const region;
        ::pid_t const child = ::fork();
        if (child == 0) return; // as it must not
        int status = 0;
        ::waitpid(child, &status, 0);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) std::puts("aborted");
    });
}
child_program const left_in_fork("a region in a fork", [] { leave_region_in_fork("epoll"); });
child_program const left_in_fork_under_sim("a region under sim in a fork", [] { leave_region_in_fork("sim"); });

// The two ways in which the thread stays with its worker.
void where_workers_stay(std::function<void()> const& body) {
    run_test({.workers = {}}, body);
    run_test(on_threads, [&] {
        no_migrate const stay;
        body();
    });
}

} // namespace

TEST_SUITE("runtime.blocking_region") {
    TEST_CASE("While a region blocks its thread, ready tasks of the worker go on") {
        run_test(on_threads, [] {
            std::binary_semaphore opened(0);
            bool done = false;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 4; ++task)
                    group.start_soon([&] {
                        blocking_region region;
                        opened.acquire();
                        opened.release(); // the next one's
                    });
                group.start_soon([&] {
                    lowlevel::checkpoint();
                    done = true;
                    opened.release();
                });
            });
            check(done, "the last task ran");
        });
    }

    TEST_CASE("Timers go on, and what was woken just before the region runs") {
        run_test(on_threads, [] {
            std::binary_semaphore opened(0);
            gate woken;
            std::atomic<bool> waits{false};
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    waits = true;
                    woken.wait();
                    sleep(1ms);
                    opened.release();
                });
                while (!waits)
                    lowlevel::checkpoint();
                lowlevel::checkpoint(); // it waits by now, or finds the gate open
                woken.open();
                blocking_region region;
                opened.acquire();
            });
        });
    }

    TEST_CASE("The first task may block its thread, and run() returns on the thread that called it") {
        for (int time = 0; time < 100; ++time) {
            auto const caller = std::this_thread::get_id();
            std::thread::id inside;
            int const result = run({.workers = 1}, [&] {
                blocking_region region;
                inside = std::this_thread::get_id();
                return 5;
            });
            CHECK(result == 5);
            CHECK(inside == caller);
            CHECK(std::this_thread::get_id() == caller);
        }
    }

    TEST_CASE("Inside, a task is outside of its run, and says so by a typed error") {
        run_test(on_threads, [] {
            {
                blocking_region region;
                check_throws<no_event_loop_error>([] { lowlevel::checkpoint(); }, "checkpoint");
                check_throws<no_event_loop_error>([] { blocking_region nested; }, "a region in a region");
                check_throws<no_event_loop_error>([] { cancel_scope().run([] {}); }, "a scope");
            }
            lowlevel::checkpoint();
        });
        CHECK_THROWS_AS([[maybe_unused]] blocking_region const region, no_event_loop_error);
    }

    TEST_CASE("Inside, run() works, and inside that one a region again") {
        run_test({.workers = {1, 2}, .seeds = {}, .times = 5}, [] {
            auto const throws_and_suspends = [] {
                with_task_group([](task_group& group) {
                    group.start_soon([] { weft::sleep(100us); });
                    check_throws<int>([] { throw 1; }, "an exception");
                });
            };
            {
                blocking_region region;
                run({.workers = 1}, [&] {
                    throws_and_suspends();
                    {
                        blocking_region inner;
                        run({.workers = 2}, throws_and_suspends);
                    }
                    throws_and_suspends();
                });
                check_throws<int>([] { throw 2; }, "still in the region");
            }
            throws_and_suspends();
        });
    }

    TEST_CASE("Fifty tasks are inside at once, and no thread is left behind") {
        unsigned const before = count_threads();
        run_test({.seeds = {}, .times = 5}, [] {
            constexpr int tasks = 50;
            std::latch inside(tasks);
            with_task_group([&](task_group& group) {
                for (int task = 0; task < tasks; ++task)
                    group.start_soon([&] {
                        blocking_region region;
                        inside.arrive_and_wait();
                    });
            });
        });
        wait_for_threads(before);
    }

    TEST_CASE("Exceptions and errno come along from thread to thread") {
        run_test(on_threads, [] {
            with_task_group([](task_group& group) {
                for (int task = 0; task < 8; ++task)
                    group.start_soon([task] {
                        try {
                            blocking_region region;
                            throw std::runtime_error(std::to_string(task));
                        } catch (std::runtime_error const&) {
                            lowlevel::checkpoint();
                            {
                                blocking_region region;
                                check(std::current_exception() != nullptr, "handled on the thread");
                                errno = 100 + task;
                            }
                            check(errno == 100 + task, "errno of the thread that was left");
                            lowlevel::checkpoint();
                            try {
                                throw;
                            } catch (std::runtime_error const& error) {
                                check(error.what() == std::to_string(task), "its own exception");
                            }
                        }
                        check(std::uncaught_exceptions() == 0, "none is in flight");
                    });
            });
        });
    }

    TEST_CASE("A worker keeps its thread as long as tasks are pinned to it") {
        run_test(on_threads, [] {
            auto const home = [] { return std::this_thread::get_id(); };
            {
                no_migrate const stay;
                auto const before = home();
                {
                    blocking_region region;
                    check(home() == before, "inside");
                }
                lowlevel::checkpoint();
                check(home() == before, "afterwards");
            }
            blocking_region region; // no longer pinned
        });
    }

    TEST_CASE("Under sim the task keeps its worker, and the run stays the same each time") {
        run_test({.workers = {}}, [] {
            auto const before = std::this_thread::get_id();
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 3; ++task)
                    group.start_soon([&] {
                        blocking_region region;
                        check(std::this_thread::get_id() == before, "one thread");
                    });
            });
        });
    }

    TEST_CASE("Where the thread stays with its worker, a task inside is outside of its run, too") {
        where_workers_stay([] {
            run_var<int> number("number");
            number.set(1);
            {
                blocking_region region;
                check_throws<no_event_loop_error>([] { lowlevel::checkpoint(); }, "checkpoint");
                check_throws<no_event_loop_error>([] { sleep(1ms); }, "sleep()");
                check_throws<no_event_loop_error>([] { get_current_task(); }, "get_current_task()");
                check_throws<no_event_loop_error>([] { blocking_region nested; }, "a region in a region");
                check_throws<no_event_loop_error>([] { cancel_scope().run([] {}); }, "a scope");
                check_throws<no_event_loop_error>([&] { number.get(); }, "a variable of the run");
            }
            lowlevel::checkpoint();
            check(number.get() == 1, "inside again");
        });
    }

    TEST_CASE("Where the thread stays with its worker, what any thread may call works inside") {
        where_workers_stay([] {
            gate woken;
            std::atomic<int> done{0};
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    woken.wait();
                    ++done;
                });
                lowlevel::checkpoint();
                blocking_region region;
                woken.open();
                group.start_soon([&] { ++done; });
            });
            check(done == 2, "woken, and started");
        });
    }

    TEST_CASE("Where the thread stays with its worker, run() works inside, and in it a region again") {
        where_workers_stay([] {
            int rounds = 0;
            {
                blocking_region region;
                for (char const* const backend : {"epoll", "sim"})
                    run({.backend = backend, .workers = 1}, [&] {
                        with_task_group([](task_group& group) {
                            group.start_soon([] { weft::sleep(100us); });
                            check_throws<int>([] { throw 1; }, "an exception");
                        });
                        {
                            blocking_region inner;
                            check_throws<no_event_loop_error>([] { lowlevel::checkpoint(); }, "inside");
                        }
                        lowlevel::checkpoint();
                        ++rounds;
                    });
                check_throws<no_event_loop_error>([] { lowlevel::checkpoint(); }, "still inside");
            }
            lowlevel::checkpoint();
            check(rounds == 2, "both runs");
        });
    }

    TEST_CASE("A region under sim that is left in a child of fork() ends that process and says why") {
        child_end const end = run_child("a region under sim in a fork");
        CHECK(end.says("was left in a child of fork()"));
        CHECK(end.says("aborted"));
    }

    TEST_CASE("A region that is left in a child of fork() ends that process and says why") {
        child_end const end = run_child("a region in a fork");
        CHECK(end.says("was left in a child of fork()"));
        CHECK(end.says("aborted"));
    }

    TEST_CASE("Regions, wakes, cancellation and timers in any order") {
        run_test({.seeds = {}, .times = 3}, [] {
            std::atomic<int> left{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 20; ++task)
                    group.start_soon([&, task] {
                        for (int time = 0; time < 20; ++time) {
                            move_on_after(std::chrono::microseconds(task * 10), [&] {
                                lowlevel::checkpoint();
                                {
                                    blocking_region region;
                                    if (time % 4 == 0) std::this_thread::yield();
                                }
                                sleep(std::chrono::microseconds(time * 10));
                            });
                            ++left;
                        }
                    });
            });
            check(left == 400, "each region was left");
        });
    }
}
