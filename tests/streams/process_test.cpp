#include <weft/streams/process.hpp>

#include "processes.hpp"
#include "support/address_space.hpp"
#include "support/child_process.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/error.hpp>
#include <weft/io/resource.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <latch>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// How processes end, and what is known of it.

TEST_SUITE_BEGIN("streams.process");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;

// Where it is the point that a process ends politely, however busy the machine is.
constexpr auto long_grace = 20s;

// Who was killed is gone a moment later. False: it lives on.
bool ends(int pid) {
    for (int look = 0; look < 10'000 * slowdown && is_running(pid); ++look)
        weft::sleep(1ms);
    return !is_running(pid);
}

// Keeps a process from ending, as a device that does not answer does: a debugger that stops it where
// it would end. It reads the number of the process, says when it has it and when that is to end, and
// lets go when its input ends.
child_program const holds_another("holds another", [] {
    int pid = 0;
    bool const holds = std::scanf("%d", &pid) == 1 &&
                       ::ptrace(PTRACE_SEIZE, pid, nullptr, PTRACE_O_TRACEEXIT) == 0;
    std::puts(holds ? "held" : "may not");
    std::fflush(stdout);
    if (!holds) return;
    int status = 0;
    while (::waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status) &&
           status >> 8 != (SIGTRAP | PTRACE_EVENT_EXIT << 8))
        ::ptrace(PTRACE_CONT, pid, nullptr, WSTOPSIG(status));
    std::puts("ending");
    std::fflush(stdout);
    (void)std::getchar(); // the end of the line
    (void)std::getchar();
});

// Goes into its parent's process group, as shells and daemons do, and leaves somebody in its own.
void leave_the_group() {
    ::pid_t const left = ::fork();
    if (left != 0) {
        ::setpgid(0, ::getpgid(::getppid()));
        std::printf("%d\n", int(left));
        std::fflush(stdout);
    }
    for (;;)
        ::pause();
}

child_program const leaves_its_group("leaves its group", leave_the_group);
child_program const leaves_and_is_deaf("leaves its group and is deaf", [] {
    ::signal(SIGTERM, SIG_IGN);
    leave_the_group();
});

weft::command itself(char const* name) {
    return {std::filesystem::read_symlink("/proc/self/exe").string(), "--child", name};
}

// Its shell ends at SIGTERM and leaves somebody behind who does not, and whose number it tells.
weft::process open_group(std::chrono::milliseconds grace) {
    return weft::open_process("(trap '' TERM; exec sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1') & wait",
                              {.stdin_ = weft::stdio::devnull,
                               .stderr_ = weft::stdio::inherit,
                               .grace_period = grace});
}

void end_and_tell(weft::process& group) {
    try {
        weft::close_forcefully(group);
        std::puts("no error");
    } catch (std::system_error const& failure) {
        std::puts(failure.what());
    }
}

void tell_who_lives(weft::process& group, int left) {
    bool const lives = !ends(left);
    std::printf("the shell: %d, the other one lives: %d\n", group.returncode().value_or(1), lives);
    if (lives) ::kill(left, SIGKILL);
}

// The only thread of the pool is busy, and there is no room for another one to look for the group in.
child_program const ends_a_group_without_threads("ends a group without threads", [] {
    weft::run({.workers = 1}, [] {
        weft::process child = open_group(50ms);
        int const grandchild = std::stoi(read_line(*child.stdout_stream()));
        std::latch over(1);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { weft::to_thread::run_sync([&] { over.wait(); }); });
            weft::wait_all_tasks_blocked();
            allow_more_address_space(1 << 20);
            end_and_tell(child);
            over.count_down();
        });
        tell_who_lives(child, grandchild);
    });
});

// But for one, which opening /proc takes.
child_program const ends_a_group_without_descriptors("ends a group without descriptors", [] {
    weft::run({.workers = 1}, [] {
        weft::process child = open_group(50ms);
        int const grandchild = std::stoi(read_line(*child.stdout_stream()));
        ::rlimit few{};
        ::getrlimit(RLIMIT_NOFILE, &few);
        few.rlim_cur = 64;
        ::setrlimit(RLIMIT_NOFILE, &few);
        std::vector<weft::unique_fd> rest;
        do
            rest.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        while (rest.back());
        child.stdout_stream()->close();
        end_and_tell(child);
        rest.clear();
        tell_who_lives(child, grandchild);
    });
});

weft::process start_holder() { return weft::open_process(itself("holds another")); }

} // namespace

TEST_CASE("SP4: several tasks wait, repeatedly, before and after the end; SP16") {
    run_with_processes(
        [] {
            weft::process child = weft::open_process({"cat"});
            std::atomic<int> heard = 0;
            weft::with_task_group([&](weft::task_group& group) {
                for (int task = 0; task < 5; ++task)
                    group.start_soon([&] {
                        check(child.wait() == 0, "its exit status");
                        check(child.returncode() == 0, "it is there once wait() returns");
                        ++heard;
                    });
                weft::wait_all_tasks_blocked();
                check(!child.returncode() && heard == 0, "it runs");
                child.stdin_stream()->close();
            });
            check(heard == 5 && child.wait() == 0, "and again");
            child.close();
            child.close();
        },
        20);
}

TEST_CASE("SP4: a cancelled waiter leaves the others waiting") {
    run_with_processes(
        [] {
            weft::process child = weft::open_process({"cat"});
            weft::with_task_group([&](weft::task_group& group) {
                weft::cancel_scope first;
                weft::event gave_up;
                group.start_soon([&] {
                    check(!first.run([&] { child.wait(); }), "cut short");
                    gave_up.set();
                });
                weft::wait_all_tasks_blocked();
                group.start_soon(
                    [&] { check(child.wait() == 0, "the other one hears of the end"); });
                weft::wait_all_tasks_blocked();
                first.cancel();
                gave_up.wait();
                child.stdin_stream()->close();
            });
            child.close();
        },
        20);
}

TEST_CASE("SP4: minus the signal that killed it; and it has ended though its pipes are held open") {
    run_with_processes([] {
        weft::process child = weft::open_process("sleep 1000 & echo $!; exit 7");
        check(child.wait() == 7, "the shell has ended");
        int const grandchild = std::stoi(read_line(*child.stdout_stream()));
        check(is_running(grandchild), "what it started has not");
        ::kill(grandchild, SIGKILL);
        child.close();
        auto const killed = weft::run_process("kill -9 $$", {.check = false});
        check(killed.returncode == -SIGKILL, "by a signal");
    });
}

TEST_CASE("SP5: the returncode is known without wait()") {
    run_with_processes([] {
        weft::process child = weft::open_process({"cat"});
        int const pid = child.pid();
        check(!child.returncode(), "it runs");
        child.stdin_stream()->close();
        while (!child.returncode())
            std::this_thread::yield();
        check(child.returncode() == 0 && child.pid() == pid && !exists(pid), "ended, and reaped");
    });
}

TEST_CASE("SP6: signals reach it, and nobody else once it has ended") {
    run_with_processes([] {
        weft::process child = weft::open_process({"sleep", "1000"});
        check_throws<std::invalid_argument>([&] { child.send_signal(-1); }, "no signal");
        check_throws<std::invalid_argument>([&] { child.send_signal(1000); }, "no signal");
        std::thread([&] { child.send_signal(SIGUSR1); }).join(); // any thread
        check(child.wait() == -SIGUSR1, "by the signal");
        child.kill();
        child.terminate();
        child.send_signal(SIGUSR1);
        child.close();
    });
}

TEST_CASE("SP7: close() closes the streams and waits; it asks nobody to end") {
    run_with_processes([] {
        weft::process child = weft::open_process("cat >/dev/null; exit 3");
        child.close();
        check(child.returncode() == 3, "it ended by itself");
        check_throws<weft::closed_resource_error>([&] { child.stdin_stream()->send("x"); }, "SP12");
        // It writes for ever: closing our end is what frees it.
        weft::process flood = weft::open_process({"yes"});
        flood.close();
        check(flood.returncode() == -SIGPIPE, "its reader is gone");
    });
}

TEST_CASE("SP7, SP8: a cancelled close() ends the process, and reaps it, before it goes on") {
    run_with_processes(
        [] {
            weft::process child =
                weft::open_process({"sleep", "1000"}, {.grace_period = long_grace});
            int const pid = child.pid();
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { check(!scope.run([&] { child.close(); }), "cut short"); });
                weft::wait_all_tasks_blocked();
                check(!child.returncode(), "it is waited for");
                scope.cancel();
            });
            check(!exists(pid) && child.returncode() == -SIGTERM, "politely");
            weft::process other =
                weft::open_process({"sleep", "1000"}, {.grace_period = long_grace});
            weft::close_forcefully(other);
            check(other.returncode() == -SIGTERM, "forcefully, the same");
        },
        5);
}

TEST_CASE("M15, SP17: who is woken by close() may destroy the process, which ends close() and wait()") {
    run_with_processes(
        [] {
            auto child = std::make_unique<weft::process>(weft::open_process({"sleep", "1000"}));
            weft::process& seen = *child;
            std::atomic<int> over = 0;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    auto& from = *seen.stdout_stream();
                    check_throws<weft::closed_resource_error>([&] { from.receive(); }, "woken");
                    child.reset();
                    ++over;
                });
                group.start_soon([&] {
                    check(seen.wait() == -SIGKILL, "killed by its owner's end");
                    ++over;
                });
                weft::wait_all_tasks_blocked();
                seen.close();
                ++over;
            });
            check(over == 3, "nobody waits any more");
        },
        5);
}

TEST_CASE("SP8: who does not listen to SIGTERM is killed when the grace is over") {
    run_with_processes([] {
        weft::process deaf = weft::open_process(
            "trap '' TERM; echo ready; while :; do sleep 1000; done", {.grace_period = 50ms});
        check(read_line(*deaf.stdout_stream()) == "ready", "it began");
        weft::close_forcefully(deaf);
        check(deaf.returncode() == -SIGKILL, "firmly");

        weft::process tidy = weft::open_process(
            "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01 & wait; done",
            {.grace_period = long_grace});
        check(read_line(*tidy.stdout_stream()) == "ready", "it began");
        weft::close_forcefully(tidy);
        check(tidy.returncode() == 5, "it had the time to say good-bye");

        weft::process stopped = weft::open_process({"sleep", "1000"}, {.grace_period = long_grace});
        stopped.send_signal(SIGSTOP);
        weft::close_forcefully(stopped);
        check(stopped.returncode() == -SIGTERM, "one that is stopped hears it, too");
    });
}

TEST_CASE("SP8: the whole group ends, also what ignores SIGTERM and closed its outputs") {
    run_with_processes([] {
        weft::process child = weft::open_process(
            "(trap '' TERM; exec >/dev/null 2>&1; while :; do sleep 1000; done) & echo $!; wait",
            {.grace_period = 50ms});
        int const grandchild = std::stoi(read_line(*child.stdout_stream()));
        weft::close_forcefully(child);
        check(child.returncode() == -SIGTERM, "the shell was polite");
        check(ends(grandchild), "the other one was not asked twice");
    });
}

TEST_CASE("SP8: the whole group ends also where no thread can be had to look for it") {
    if (slowdown > 1) return; // the sanitizers need address space without bounds
    auto const end = run_child("ends a group without threads");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("no error"));
    CHECK(end.says("the shell: -15, the other one lives: 0"));
}

TEST_CASE("SP8: the whole group ends also where there are no descriptors to look for it with") {
#if defined(__SANITIZE_ADDRESS__)
    MESSAGE("not with UBSan: it looks at objects through a pipe, for which there is no descriptor");
#else
    auto const end = run_child("ends a group without descriptors");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("no error"));
    CHECK(end.says("the shell: -15, the other one lives: 0"));
#endif
}

TEST_CASE("SP7, SP8, SP17: who has left its group ends as well, and what it left there") {
    auto const await_end = [](int pid) {
        while (is_running(pid))
            std::this_thread::yield();
    };
    run_with_processes([&] {
        weft::process child =
            weft::open_process(itself("leaves its group"), {.grace_period = long_grace});
        int left = std::stoi(read_line(*child.stdout_stream()));
        weft::close_forcefully(child);
        check(child.returncode() == -SIGTERM, "politely");
        await_end(left);

        weft::process deaf =
            weft::open_process(itself("leaves its group and is deaf"), {.grace_period = 20ms});
        left = std::stoi(read_line(*deaf.stdout_stream()));
        weft::close_forcefully(deaf);
        check(deaf.returncode() == -SIGKILL, "firmly");
        await_end(left);
    });
    int left = 0;
    run_with_processes([&] { // the run would wait for it
        weft::process dropped = weft::open_process(itself("leaves its group"));
        left = std::stoi(read_line(*dropped.stdout_stream()));
    });
    await_end(left);
}

TEST_CASE("SP7: at every point where close() can be cancelled") {
    weft::test::cancel_at_every_suspension_point([](weft::test::attempt& at) {
        weft::process child = weft::open_process({"cat"});
        at.run([&] { child.close(); });
        check(child.returncode().has_value(), "it has ended");
    });
}

TEST_CASE("SP13: a process that cannot end is waited for, whoever cancels that") {
    bool tried = false;
    run_with_processes([&tried] {
        weft::process holder = start_holder();
        weft::process held = weft::open_process({"sleep", "1000"}, {.grace_period = 0s});
        holder.stdin_stream()->send(std::to_string(held.pid()) + "\n");
        if (read_line(*holder.stdout_stream()) != "held") { // nobody may trace here
            weft::close_forcefully(held);
            holder.close();
            return;
        }
        tried = true;
        weft::with_task_group([&](weft::task_group& group) {
            weft::cancel_scope scope;
            weft::event closed;
            group.start_soon([&] {
                check(!scope.run([&] { held.close(); }), "cut short in the end");
                closed.set();
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            check(read_line(*holder.stdout_stream()) == "ending", "it was killed");
            weft::wait_all_tasks_blocked();
            check(!closed.is_set() && !held.returncode(), "and is waited for all the same");
            holder.stdin_stream()->close();
            closed.wait();
        });
        check(held.returncode() == -SIGKILL, "when it could it ended");
        holder.close();
    });
    if (!tried) MESSAGE("not tried: a process cannot be traced here");
}

TEST_CASE("SP14: a status that somebody else took is 255, and nobody waits for ever") {
    weft::test::run_test({.workers = {2}, .seeds = {}}, [] {
        weft::process child = weft::open_process({"cat"});
        std::thread thief([pid = child.pid()] { ::waitpid(pid, nullptr, 0); });
        child.stdin_stream()->close();
        thief.join();
        check(child.wait() == 255 && child.returncode() == 255, "defined");
        child.kill();
        child.close();
    });
}

TEST_CASE("SP14: children of others are left alone") {
    ::pid_t const other = ::fork();
    if (other == 0) ::_exit(42);
    weft::test::run_test({.seeds = {}}, [] { weft::run_process({"true"}); });
    int status = 0;
    REQUIRE(::waitpid(other, &status, 0) == other);
    CHECK(WEXITSTATUS(status) == 42);
}

TEST_CASE("SP17: a process that is dropped is killed, with its group, and reaped by the run") {
    run_with_processes([] {
        for (int round = 0; round < 10; ++round) {
            weft::open_process({"sleep", "1000"});
            weft::open_process("yes | cat");
        }
    });
    std::unique_ptr<weft::process> outlives;
    weft::run([&] {
        outlives = std::make_unique<weft::process>(weft::open_process({"sleep", "1000"}));
    });
    int const pid = outlives->pid();
    CHECK(!outlives->returncode());
    outlives.reset();
    CHECK(!exists(pid));
}

TEST_CASE("SP8: an exception in the middle of a conversation leaves no process") {
    run_with_processes([] {
        check_throws<std::runtime_error>(
            [] {
                weft::process child = weft::open_process({"cat"});
                child.stdin_stream()->send("x");
                throw std::runtime_error("torn");
            },
            "it passes");
    });
}

TEST_SUITE_END();
