#include "support/child_process.hpp"
#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <csignal>
#include <deque>
#include <stdexcept>
#include <thread>

#include <unistd.h>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

// Not std::this_thread::get_id(): a compiler may keep its result across a switch.
[[gnu::noinline]] int thread_number() {
    int const number = ::gettid();
    asm volatile("" ::: "memory");
    return number;
}

void suspend_in_ban(void (*call)()) {
    run({.workers = 1}, [call] {
        with_task_group([call](task_group& group) {
            group.start_soon({.name = "the banned"}, [call] {
                no_suspend const ban;
                call();
            });
        });
    });
}

child_program const ban_sleep("ban_sleep", [] { suspend_in_ban([] { weft::sleep(1ms); }); });
child_program const ban_checkpoint("ban_checkpoint", [] { suspend_in_ban(lowlevel::checkpoint); });
void ban_again(int times) {
    no_suspend const ban;
    times > 1 ? ban_again(times - 1) : weft::sleep(1ms);
}
child_program const bans_within_bans("bans_within_bans", [] { run({.workers = 1}, [] { ban_again(256); }); });

child_program const ban_group("ban_group", [] { suspend_in_ban([] { with_task_group([] {}); }); });

} // namespace

TEST_SUITE("runtime.this_task") {
    TEST_CASE("E5: what a task knows of itself needs a task") {
        CHECK_THROWS_AS(this_task::id(), no_event_loop_error);
        CHECK_THROWS_AS(this_task::name(), no_event_loop_error);
        CHECK_THROWS_AS(this_task::stack_remaining(), no_event_loop_error);
        CHECK_THROWS_AS(no_suspend(), no_event_loop_error);
        CHECK_THROWS_AS(no_migrate(), no_event_loop_error);
    }

    TEST_CASE("TI1: id and name are those of task_info") {
        run_test([] {
            CHECK(this_task::id() == get_current_task().id);
            with_task_group([](task_group& group) {
                group.start_soon({.name = "me"}, [] {
                    CHECK(this_task::name() == "me");
                    CHECK(this_task::id() == get_current_task().id);
                });
            });
        });
    }

    TEST_CASE("TR85: stack_remaining shrinks as the stack is used and is below the stack's size") {
        run_test([] {
            std::size_t const before = this_task::stack_remaining();
            CHECK(before < get_current_task().stack_size);
            CHECK(before > get_current_task().stack_size / 4);
            struct deeper {
                [[gnu::noinline]] static std::size_t look() {
                    char room[8192];
                    asm volatile("" : : "r"(room) : "memory"); // used, as far as a compiler knows
                    std::size_t const remaining = this_task::stack_remaining();
                    asm volatile("" : : "r"(room) : "memory");
                    return remaining;
                }
            };
            CHECK(deeper::look() + 8192 <= before);
        });
    }

    TEST_CASE("TR81: a suspension inside no_suspend ends the process and names task and call") {
        child_end const sleep_end = run_child("ban_sleep");
        CHECK(sleep_end.signal == SIGABRT);
        CHECK(sleep_end.says("the banned"));
        CHECK(sleep_end.says("sleep"));
        child_end const checkpoint_end = run_child("ban_checkpoint");
        CHECK(checkpoint_end.signal == SIGABRT);
        CHECK(checkpoint_end.says("lowlevel::checkpoint"));
    }

    TEST_CASE("TR81: no_suspend holds however many there are within each other; more than can be counted are refused") {
        CHECK(run_child("bans_within_bans").signal == SIGABRT);
        run_test([] {
            std::deque<no_suspend> bans;
            for (int open = 0; open < 65'535; ++open)
                bans.emplace_back();
            check_throws<std::length_error>([&] { bans.emplace_back(); }, "refused");
            bans.clear();
            lowlevel::checkpoint();
        });
    }

    TEST_CASE("TR81: leaving a task group always yields, so no_suspend does not allow it") {
        child_end const end = run_child("ban_group");
        CHECK(end.signal == SIGABRT);
        CHECK(end.says("task_group::run"));
    }

    TEST_CASE("TR81: calls that wait for nothing are fine inside no_suspend, however many") {
        run_test([] {
            with_task_group([](task_group& group) {
                auto const done = group.create_task([] { return 1; });
                while (!done.done())
                    lowlevel::checkpoint();
                no_suspend const ban;
                int sum = 0;
                for (int time = 0; time < 1000; ++time)
                    sum += done.wait(); // complete: it does not wait
                CHECK(sum == 1000);
                lowlevel::checkpoint_if_cancelled();
                group.start_soon([] {});
                no_suspend const another;
            });
        });
    }

    TEST_CASE("TR81, LL5: however many calls no_suspend kept from yielding, the next one after it does") {
        run({.workers = 1}, [] {
            with_task_group([](task_group& group) {
                auto const done = group.create_task([] { return 1; });
                lowlevel::checkpoint();
                for (int const calls : {1000, 40'000, 70'000}) {
                    {
                        no_suspend const ban;
                        for (int time = 0; time < calls; ++time)
                            done.wait();
                    }
                    bool turn = false;
                    group.start_soon([&] { turn = true; });
                    done.wait();
                    CHECK(turn);
                }
            });
        });
    }

    TEST_CASE("TR81: after no_suspend the task suspends again") {
        run_test([] {
            { no_suspend const ban; }
            lowlevel::checkpoint();
        });
    }

    TEST_CASE("M7: under no_migrate a task stays on its thread, whatever it waits for") {
        run_test({.workers = {1, 2, 4}, .seeds = {0}, .times = 5}, [] {
            std::atomic<int> moved{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 20; ++task)
                    group.start_soon([&] {
                        lowlevel::checkpoint();
                        no_migrate const stay;
                        int const here = thread_number();
                        for (int time = 0; time < 20; ++time) {
                            no_migrate const nested;
                            if (time % 5 == 0)
                                weft::sleep(10us);
                            else
                                lowlevel::checkpoint();
                            if (thread_number() != here) ++moved;
                        }
                        lowlevel::checkpoint();
                        if (thread_number() != here) ++moved;
                    });
            });
            CHECK(moved == 0);
        });
    }

    TEST_CASE("M7: a pinned task stays on the worker that first ran it, also if a thread wakes it") {
        run_test({.workers = {1, 2, 4}, .seeds = {0}, .times = 5}, [] {
            std::atomic<int> moved{0};
            gate go;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 20; ++task)
                    group.start_soon({.pinned = true}, [&] {
                        int const here = thread_number();
                        for (int time = 0; time < 10; ++time) {
                            lowlevel::checkpoint();
                            if (thread_number() != here) ++moved;
                        }
                        go.wait();
                        if (thread_number() != here) ++moved;
                        weft::sleep(10us);
                        if (thread_number() != here) ++moved;
                        no_migrate const also;
                        lowlevel::checkpoint();
                        if (thread_number() != here) ++moved;
                    });
                std::thread([&] { go.open(); }).join();
            });
            CHECK(moved == 0);
        });
    }

    TEST_CASE("M7: pinned tasks do not starve, and do not starve others") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            std::atomic<bool> stop{false};
            std::atomic<int> others{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 4; ++task)
                    group.start_soon({.pinned = task % 2 == 0}, [&] {
                        while (!stop)
                            lowlevel::checkpoint();
                    });
                for (int task = 0; task < 10; ++task)
                    group.start_soon({.pinned = task % 2 == 0}, [&] {
                        lowlevel::checkpoint();
                        ++others;
                    });
                while (others < 10)
                    weft::sleep(100us);
                stop = true;
            });
        });
    }
}
