#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include "runtime/src/stack_pool.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/forked.hpp"
#include "tests/support/gate.hpp"
#include "tests/support/run_test.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <system_error>
#include <thread>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

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

// So many tasks at once.
void crowd(int tasks) {
    gate all_are_there;
    with_task_group([&](task_group& group) {
        for (int task = 0; task < tasks; ++task)
            group.start_soon([&] { all_are_there.wait(); });
        wait_all_tasks_blocked();
        all_are_there.open();
    });
}

struct crowd_of {
    unsigned workers;
    int tasks;
};
// A worker keeps 32 to 64 stacks, the others lie in the depot. A few there are left to an only worker.
constexpr crowd_of few_stacks{1, 80}, many_stacks{1, 300}, stacks_of_two{2, 300};

void leave_idle_stacks(int tasks) {
    do // the machine may be so slow that they were given back
        crowd(tasks);
    while (stack_depot::idle_stacks() == 0);
}

void compute(duration time) {
    for (auto const until = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < until;) {}
}

std::string told_in(std::filesystem::path const& status, std::string const& name) {
    std::ifstream lines(status);
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with(name + ":")) return line;
    return {};
}

// What the kernel tells of the monitor's thread; empty: there is no such thread.
std::string status_of_monitor(std::string const& name) {
    for (auto const& thread : std::filesystem::directory_iterator("/proc/self/task"))
        if (told_in(thread.path() / "status", "Name").ends_with("weft-monitor"))
            return told_in(thread.path() / "status", name);
    return {};
}
bool has_monitor() {
    return !status_of_monitor("Name").empty();
}
void wait_for_monitor(bool to_be_there) {
    while (has_monitor() != to_be_there)
        std::this_thread::yield();
}

std::uint64_t sleeps_so_far() {
    std::uint64_t sum = 0;
    for (worker_statistics const& each : get_run_statistics().workers)
        sum += each.sleeps;
    return sum;
}

// The C library falls back to clone(), whose flags can be seen; other processes may be started.
void refuse_threads() {
    ::sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 2),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    ::sock_fprog const program{static_cast<unsigned short>(std::size(rules)), rules};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        std::puts("no filter for system calls");
}

void tell_refusal(run_options const& options) {
    try {
        run(options, [] { std::puts("it ran"); });
    } catch (std::system_error const& error) {
        std::printf("%s: %s\n", error.code() == std::errc::resource_unavailable_try_again ? "EAGAIN" : "?",
                    error.what());
    }
}

child_program const no_threads("no_threads_for_a_monitor", [] {
    std::thread([] {}).join(); // a sanitizer's own thread is there now
    refuse_threads();
    tell_refusal({.workers = 2});
    tell_refusal({.workers = 1, .stall_threshold = 1s});
    unsigned const before = count_threads();
    run({.workers = 1}, [] {
        if (!move_on_after(1ms, [] { sleep_forever(); })) std::puts("a wait was cut short");
        if (!move_on_after(1ms, [] {
                for (;;)
                    detail::enter_blocking_call("a call that completes at once");
            }))
            std::puts("calls were cut short");
        cancel_scope scope;
        scope.run([&] {
            scope.set_deadline(current_time() + 1ms);
            for (;;)
                lowlevel::checkpoint();
        });
        if (scope.cancelled_caught()) std::puts("a deadline that was set was met");
        crowd(many_stacks.tasks);
        std::uint64_t const slept = sleeps_so_far();
        weft::sleep(500ms);
        if (sleeps_so_far() <= slept + 3) std::puts("slept through"); // not to look each 100 ms
    });
    if (count_threads() <= before) std::puts("no thread");
});

// The first thing that entering a scope changes in it is held up until a thread has set the deadline.
char* page_of_scope = nullptr;
std::atomic<bool> is_being_entered = false, is_set = false;

void on_write(int, siginfo_t* what, void*) {
    auto const* const where = static_cast<char const*>(what->si_addr);
    if (where < page_of_scope || where >= page_of_scope + detail::fiber::page) ::_exit(9);
    ::mprotect(page_of_scope, detail::fiber::page, PROT_READ | PROT_WRITE);
    is_being_entered = true;
    while (!is_set.load()) {}
}

child_program const slow_entry("deadline_set_during_entry", [] {
    constexpr int writable = PROT_READ | PROT_WRITE;
    void* const page = ::mmap(nullptr, detail::fiber::page, writable, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page_of_scope = static_cast<char*>(page);
    run({.workers = 1}, [&] {
        struct sigaction held_up{};
        held_up.sa_sigaction = on_write;
        held_up.sa_flags = SA_SIGINFO | SA_ONSTACK;
        ::sigaction(SIGSEGV, &held_up, nullptr);
        auto* const scope = new (page) cancel_scope;
        std::thread outside([&] {
            while (!is_being_entered.load()) {}
            scope->set_deadline(clock::now() + 1ms);
            is_set = true;
        });
        ::mprotect(page, detail::fiber::page, PROT_READ);
        bool const finished = scope->run([] {
            for (;;)
                lowlevel::checkpoint_if_cancelled();
        });
        outside.join();
        scope->~cancel_scope();
        if (!finished) std::puts("cut short");
    });
});

} // namespace

TEST_SUITE("runtime.monitor") {
    TEST_CASE("C24: a run with one worker starts a thread beside it for its first deadline only, and joins it") {
        wait_for_monitor(false); // that of the test before
        run({.workers = 1}, [&] {
            crowd(few_stacks.tasks);
            weft::sleep(1ms);
            shielded([] { lowlevel::checkpoint(); });
            CHECK_FALSE(has_monitor());
            CHECK(move_on_after(1h, [] { lowlevel::checkpoint(); }));
            wait_for_monitor(true);
            unsigned const threads = count_threads();
            CHECK(move_on_after(1h, [] { lowlevel::checkpoint(); }));
            CHECK(count_threads() <= threads);
        });
        wait_for_monitor(false);
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

    TEST_CASE("C24: a deadline that a thread sets while its scope is being entered is looked after") {
        auto const end = run_child("deadline_set_during_entry");
        INFO(end.output);
        CHECK(end.exit_code == 0);
        CHECK(end.says("cut short"));
    }

    TEST_CASE("C24: threads that set the deadline of a scope while its run ends do no harm") {
        for (int round = 0; round < 100; ++round) {
            cancel_scope scope;
            std::atomic<int> begun = 0;
            std::atomic<bool> ended = false;
            auto const set_deadlines = [&](duration shortest) {
                for (duration delay = shortest; !ended.load(); delay = delay < 1h ? 2 * delay : shortest) {
                    ++begun;
                    scope.set_deadline(clock::now() + delay);
                    scope.set_deadline(time_point::max());
                }
            };
            std::thread one(set_deadlines, 10us), other(set_deadlines, 1h);
            while (begun.load() < 2)
                std::this_thread::yield();
            bool came_through = false;
            run({.workers = 1}, [&] {
                bool const finished = scope.run([&] {
                    for (int const seen = begun.load(); begun.load() < seen + round % 10;)
                        lowlevel::checkpoint();
                    came_through = true;
                });
                CHECK(finished == came_through);
                CHECK(scope.cancelled_caught() == !came_through);
            });
            ended = true;
            one.join();
            other.join();
        }
    }

    TEST_CASE("C24: where no thread can be had for it a deadline counts at the next wait or after many calls") {
        auto const end = run_child("no_threads_for_a_monitor");
        INFO(end.output);
        CHECK(end.exit_code == 0);
        CHECK(end.says("EAGAIN: run(): no thread for worker 1 of 2"));
        CHECK(end.says("EAGAIN: run(): no thread for the monitor"));
        CHECK_FALSE(end.says("it ran"));
        CHECK(end.says("a wait was cut short"));
        CHECK(end.says("calls were cut short"));
        CHECK(end.says("a deadline that was set was met"));
        CHECK(end.says("slept through"));
        CHECK(end.says("no thread\n"));
    }

    TEST_CASE("SG5: what a deadline starts has the signals and the schedule of run()'s thread, whoever sets it") {
        wait_for_monitor(false); // that of the test before
        sigset_t given{}, before{};
        ::sigemptyset(&given);
        ::sigaddset(&given, SIGUSR2);
        ::pthread_sigmask(SIG_BLOCK, &given, &before);
        std::string const blocked = told_in("/proc/thread-self/status", "SigBlk");
        std::string const cpus = told_in("/proc/thread-self/status", "Cpus_allowed_list");
        int const policy = ::sched_getscheduler(0);
        run({.workers = 1}, [&] {
            cancel_scope scope;
            scope.run([&] {
                std::thread([&] { // as if it had begun before the signal was blocked
                    ::pthread_sigmask(SIG_UNBLOCK, &given, nullptr);
                    sched_param const none{};
                    CHECK(::pthread_setschedparam(::pthread_self(), SCHED_IDLE, &none) == 0);
                    cpu_set_t one{};
                    CPU_SET(unsigned(::sched_getcpu()), &one);
                    CHECK(::pthread_setaffinity_np(::pthread_self(), sizeof one, &one) == 0);
                    scope.set_deadline(clock::now() + 1h);
                }).join();
                wait_for_monitor(true);
                CHECK(status_of_monitor("SigBlk") == blocked);
                CHECK(status_of_monitor("Cpus_allowed_list") == cpus);
                CHECK(::sched_getscheduler(std::stoi(status_of_monitor("Pid").substr(4))) == policy);
            });
        });
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    TEST_CASE("SP14: a deadline that a forked child sets starts nothing there") {
        run({.workers = 1}, [] {
            cancel_scope scope;
            scope.run([&] {
                auto const child = [&] {
                    scope.set_deadline(clock::now() + 1h);
                    return int(count_threads()) - 1;
                };
                CHECK(weft::test::failures_in_fork(child) == 0);
            });
        });
    }

    TEST_CASE("TR85: a run that has nothing to do gives the memory of idle stacks back, and sleeps meanwhile") {
        for (auto const [workers, tasks] : {few_stacks, many_stacks, stacks_of_two})
            run({.workers = workers}, [&] {
                gate given_back;
                leave_idle_stacks(tasks);
                std::thread outside([&] {
                    while (stack_depot::idle_stacks() != 0)
                        std::this_thread::sleep_for(1ms);
                    given_back.open();
                });
                std::uint64_t const before = sleeps_so_far();
                given_back.wait();
                if (workers == 1) CHECK(sleeps_so_far() <= before + 4); // two, and what interrupts them
                outside.join();
                crowd(tasks);
            });
    }

    TEST_CASE("TR85: a run that is busy gives the memory of stacks back that it did not need of late") {
        for (auto const [workers, tasks] : {few_stacks, stacks_of_two})
            run({.workers = workers}, [&] {
                leave_idle_stacks(tasks);
                while (stack_depot::idle_stacks() != 0)
                    lowlevel::checkpoint();
                crowd(tasks);
            });
    }

    TEST_CASE("TR85: a run with one worker leaves the memory of many idle stacks to a thread") {
        wait_for_monitor(false); // that of the test before
        run({.workers = 1}, [&] {
            crowd(many_stacks.tasks);
            while (!has_monitor())
                lowlevel::checkpoint();
        });
        wait_for_monitor(false);
    }

    TEST_CASE("TI1: for how long a task has waited is told rightly after turns that took long, too") {
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
                auto const tasks = get_running_tasks();
                auto const found = std::ranges::find(tasks, "who waits", &task_info::name);
                REQUIRE(found != tasks.end());
                CHECK(found->state == task_state::waiting);
                CHECK(found->waited <= current_time() - began + 3ms);
                group.cancel();
            });
        });
    }
}
