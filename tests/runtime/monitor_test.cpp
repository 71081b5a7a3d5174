#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include "runtime/src/stack_pool.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/gate.hpp"
#include "tests/support/run_test.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <system_error>
#include <thread>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

// What the thread that looks after busy workers is there for, and who does it in a run that has no such thread yet.

using namespace std::chrono_literals;
using namespace weft;
using weft::detail::stack_depot;
using weft::test::child_program;
using weft::test::count_threads;
using weft::test::gate;
using weft::test::run_child;
using weft::test::run_test;

namespace {

constexpr int tasks_of_a_crowd = 300; // more than a worker keeps the stacks of

void crowd() {
    gate all_are_there;
    with_task_group([&](task_group& group) {
        for (int task = 0; task < tasks_of_a_crowd; ++task)
            group.start_soon([&] { all_are_there.wait(); });
        wait_all_tasks_blocked();
        all_are_there.open();
    });
}

void compute(duration time) {
    for (auto const until = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < until;) {}
}

std::uint64_t sleeps_so_far() {
    std::uint64_t sum = 0;
    for (worker_statistics const& each : get_run_statistics().workers)
        sum += each.sleeps;
    return sum;
}

// ThreadSanitizer has a thread of its own from the first one on.
unsigned threads_without_a_run() {
    std::thread([] {}).join();
    return count_threads();
}

void refuse_threads() {
    ::sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    ::sock_fprog const program{static_cast<unsigned short>(std::size(rules)), rules};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        std::puts("no filter for system calls");
}

template <class Call> void tell_refusal(Call&& call) {
    try {
        call();
        std::puts("not refused");
    } catch (std::system_error const& error) {
        std::printf("%s: %s\n", error.code() == std::errc::resource_unavailable_try_again ? "EAGAIN" : "?",
                    error.what());
    }
}

child_program const no_threads("no_threads_for_a_monitor", [] {
    std::thread([] {}).join(); // a sanitizer's own thread is there now
    refuse_threads();
    tell_refusal([] { run({.workers = 2}, [] { std::puts("it ran"); }); });
    tell_refusal([] { run({.workers = 1, .stall_threshold = 1s}, [] { std::puts("it ran"); }); });
    run({.workers = 1}, [] {
        tell_refusal([] { move_on_after(1h, [] { std::puts("its body ran"); }); });
        time_point const far = current_time() + 1h;
        cancel_scope scope;
        scope.run([&] {
            tell_refusal([&] { scope.set_deadline(far); });
            if (scope.deadline() == time_point::max()) std::puts("no deadline was set");
            scope.set_deadline(time_point::max());
            weft::sleep(1us);
            lowlevel::checkpoint();
        });
        with_task_group([&](task_group& group) { group.start_soon([] { weft::sleep(1us); }); });
        std::puts("the run went on");
    });
});

} // namespace

TEST_SUITE("runtime.monitor") {
    TEST_CASE("C24: a run with one worker starts a thread beside it for its first deadline only, and joins it") {
        unsigned const before = threads_without_a_run();
        run({.workers = 1}, [&] {
            crowd();
            weft::sleep(1ms);
            shielded([] { lowlevel::checkpoint(); });
            CHECK(count_threads() <= before);
            for (int time = 0; time < 3; ++time) {
                CHECK(move_on_after(1h, [] { lowlevel::checkpoint(); }));
                CHECK(count_threads() <= before + 1);
            }
        });
        weft::test::wait_for_threads(before);
    }

    TEST_CASE("C24: what starts when a deadline is there looks after the deadlines that come by other ways, too") {
        for (unsigned const workers : {1u, 2u}) {
            // By the task that is in the scope.
            run_test({.workers = {workers}, .seeds = {}}, [] {
                cancel_scope scope;
                scope.run([&] {
                    scope.set_deadline(current_time() + 5ms);
                    for (;;)
                        lowlevel::checkpoint_if_cancelled();
                });
                CHECK(scope.cancelled_caught());
            });
            // By a thread, while a child keeps the worker busy.
            run_test({.workers = {workers}, .seeds = {}}, [] {
                cancel_scope scope;
                std::atomic<bool> is_inside = false;
                std::thread outside([&] {
                    while (!is_inside.load())
                        std::this_thread::yield();
                    scope.set_deadline(current_time() + 5ms);
                });
                scope.run([&] {
                    with_task_group([&](task_group& group) {
                        group.start_soon([&] {
                            is_inside = true;
                            for (;;)
                                lowlevel::checkpoint_if_cancelled();
                        });
                    });
                });
                outside.join();
                CHECK(scope.cancelled_caught());
            });
            // Before the scope was entered.
            run_test({.workers = {workers}, .seeds = {}}, [] {
                cancel_scope scope;
                scope.set_deadline(current_time() + 5ms);
                scope.run([] {
                    for (;;)
                        lowlevel::checkpoint_if_cancelled();
                });
                CHECK(scope.cancelled_caught());
            });
        }
    }

    TEST_CASE("C24: threads that set the deadlines of scopes which are just left, at the end of the run, do no harm") {
        for (int round = 0; round < 50; ++round) {
            cancel_scope scope;
            std::atomic<int> begun = 0;
            std::atomic<bool> ended = false;
            auto const set_deadlines = [&] {
                do {
                    ++begun;
                    scope.set_deadline(time_point(clock::now() + 1h));
                } while (!ended.load());
            };
            std::thread one(set_deadlines), other(set_deadlines);
            while (begun.load() < 2)
                std::this_thread::yield();
            CHECK(run({.workers = 1}, [&] { return scope.run([] { lowlevel::checkpoint(); }); }));
            ended = true;
            one.join();
            other.join();
        }
    }

    TEST_CASE("C24: where no thread can be had for it a deadline is refused, and the run goes on") {
        auto const end = run_child("no_threads_for_a_monitor");
        CHECK(end.exit_code == 0);
        CHECK(end.says("EAGAIN: run(): no thread for worker 1 of 2"));
        CHECK(end.says("EAGAIN: run(): no thread for the monitor"));
        CHECK(end.says("EAGAIN: a deadline: no thread for the monitor of the run"));
        CHECK(end.says("no deadline was set"));
        CHECK(end.says("the run went on"));
        CHECK_FALSE(end.says("its body ran"));
        CHECK_FALSE(end.says("it ran"));
        CHECK_FALSE(end.says("not refused"));
    }

    TEST_CASE("TR85: a run that has nothing to do gives the memory of idle stacks back, once, and then sleeps") {
        for (unsigned const workers : {1u, 2u}) {
            run({.workers = workers}, [&] {
                gate given_back;
                crowd();
                CHECK(stack_depot::keeps_idle_ones());
                std::uint64_t const before = sleeps_so_far();
                std::thread outside([&] {
                    while (stack_depot::keeps_idle_ones())
                        std::this_thread::sleep_for(1ms);
                    given_back.open();
                });
                given_back.wait();
                outside.join();
                if (workers == 1) CHECK(sleeps_so_far() <= before + 4); // two, and what interrupts them
                crowd();
            });
        }
    }

    TEST_CASE("TR85: a run that is busy gives the memory of stacks back that it did not need of late") {
        for (unsigned const workers : {1u, 2u})
            run({.workers = workers}, [] {
                crowd();
                CHECK(stack_depot::keeps_idle_ones());
                while (stack_depot::keeps_idle_ones())
                    lowlevel::checkpoint();
                crowd();
            });
    }

    TEST_CASE("TI1: how long a task has waited is told rightly also after turns that took long") {
        run({.workers = 1}, [] {
            with_task_group([](task_group& group) {
                for (int turn = 0; turn < 40; ++turn) { // so that it is known for long turns
                    compute(1ms);
                    lowlevel::checkpoint();
                }
                time_point began{};
                group.start_soon({.name = "who waits"}, [&] {
                    compute(50ms);
                    began = current_time();
                    sleep_forever();
                });
                lowlevel::checkpoint();
                duration waited{};
                for (task_info const& each : get_running_tasks())
                    if (each.name == "who waits") waited = each.waited;
                CHECK(waited <= current_time() - began + 3ms);
                group.cancel();
            });
        });
    }
}
