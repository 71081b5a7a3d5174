#include "support/child_process.hpp"
#include "support/gate.hpp"
#include "support/mistakes.hpp"
#include "support/run_test.hpp"

#include <weft/io/readiness.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

std::vector<int> order_of(std::uint64_t seed) {
    std::vector<int> order;
    run({.backend = "sim", .seed = seed}, [&] {
        with_task_group([&](task_group& group) {
            for (int task = 0; task < 8; ++task)
                group.start_soon([&order, task] {
                    for (int step = 0; step < 3; ++step) {
                        order.push_back(task);
                        lowlevel::checkpoint();
                    }
                });
        });
    });
    return order;
}

// Sleeps with nothing to do, in each way of waiting; what that costs is what the child used, minus its start.
void sleep_idle(unsigned workers, duration how_long) {
    run({.workers = workers}, [how_long] {
        int ends[2];
        if (::pipe(ends) != 0) std::abort();
        with_task_group([how_long, &ends](task_group& group) {
            for (int task = 0; task < 10; ++task)
                group.start_soon([] { sleep_forever(); });
            group.start_soon([how_long] { // cancelled, and yet it has to wait
                with_task_group([how_long](task_group& cancelled) {
                    cancelled.start_soon([how_long] { shielded([how_long] { weft::sleep(how_long); }); });
                    cancelled.cancel();
                });
            });
            group.start_soon([&ends] { weft::wait_readable(ends[0]); });
            weft::sleep(how_long);
            group.cancel();
        });
        ::close(ends[0]);
        ::close(ends[1]);
    });
}

child_program const idle_briefly("idle_briefly", [] { sleep_idle(4, 1ms); });
child_program const idle_long("idle_long", [] { sleep_idle(4, 3s); });

} // namespace

TEST_SUITE("runtime.scheduler") {
    TEST_CASE("M11: with one worker and seed 0 the ready order is strictly first in, first out") {
        CHECK(order_of(0) == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7});
    }

    TEST_CASE("M11: those woken by one event run in the order in which they waited") {
        run_sim(0, [] {
            std::vector<int> order;
            gate opened;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&, task] {
                        opened.wait();
                        order.push_back(task);
                    });
                wait_all_tasks_blocked();
                opened.open();
            });
            CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
        });
    }

    TEST_CASE("M12: the same seed gives the same order, different seeds different ones") {
        unsigned different = 0;
        for (std::uint64_t seed = 1; seed < 20; ++seed) {
            CHECK(order_of(seed) == order_of(seed));
            if (order_of(seed) != order_of(seed + 1)) ++different;
        }
        CHECK(different >= 18);
    }

    TEST_CASE("M1: a task that only makes calls that complete at once yields when its budget is used up") {
        run_sim(0, [] {
            std::atomic<bool> ran{false};
            int calls = 0;
            gate opened;
            opened.open();
            with_task_group([&](task_group& group) {
                group.start_soon([&] { ran = true; });
                while (!ran) {
                    opened.wait();
                    ++calls;
                }
            });
            CHECK(calls > 10); // it did not yield each time
            CHECK(calls < 10'000);
        });
        run_test({.seeds = {1, 2}}, [] {
            std::atomic<bool> ran{false};
            gate opened;
            opened.open();
            with_task_group([&](task_group& group) {
                group.start_soon([&] { ran = true; });
                while (!ran)
                    opened.wait();
            });
        });
    }

    TEST_CASE(
        "M1: a task whose calls are all cut short at once yields when its budget is used up, too") {
        run_test([] {
            gate never;
            std::optional<task_handle<void>> endless;
            auto const starves_nobody = [&](auto const& call) {
                std::atomic<bool> ran{false};
                with_task_group([&](task_group& group) {
                    group.start_soon([&] { ran = true; });
                    while (!ran)
                        check(!move_on_after(duration(0), call), "it is cut short");
                });
            };
            with_task_group([&](task_group& group) {
                endless = group.create_task([] { sleep_forever(); });
                starves_nobody([&] { never.wait(); });
                starves_nobody([&] { endless->wait(); });
                starves_nobody([] { weft::sleep(1h); });
                starves_nobody([] { sleep_forever(); });
                starves_nobody([] { lowlevel::checkpoint(); });
                starves_nobody([] { lowlevel::checkpoint_if_cancelled(); });
                starves_nobody([] { wait_all_tasks_blocked(); });
                group.cancel();
            });
        });
        mistakes_heard const heard; // that it swallows cancellations
        run_test([] { // nor in one scope that is cancelled, whatever its handler does with that
            std::atomic<bool> ran{false};
            task_group group;
            group.run([&] {
                group.start_soon([&] { ran = true; });
                group.cancel();
                bool swallowed = false;
                while (!ran || !swallowed) {
                    try {
                        lowlevel::checkpoint();
                    } catch (cancelled const&) { // thrown by the next one again (C7)
                        swallowed = true;
                    }
                }
            });
        });
    }

    TEST_CASE("LL4: a worker that always has work looks after work from outside, too") {
        run_test({.workers = {1, 2}, .seeds = {0}}, [] {
            std::atomic<bool> stop{false};
            task_group from_outside;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 4; ++task)
                    group.start_soon([&] {
                        while (!stop)
                            lowlevel::checkpoint();
                    });
                from_outside.run([&] {
                    gate injected;
                    std::thread outside([&] { from_outside.start_soon([&] { injected.open(); }); });
                    injected.wait();
                    outside.join();
                });
                stop = true;
            });
        });
    }

    TEST_CASE("M11: a task that spawns all the time does not keep waiting tasks from running") {
        run_test({.seeds = {0, 1}}, [] {
            std::atomic<bool> stop{false};
            std::atomic<int> yielded{0};
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    while (yielded < 20) {
                        ++yielded;
                        lowlevel::checkpoint();
                    }
                    stop = true;
                });
                struct chain {
                    static void link(task_group& group, std::atomic<bool>& stop) {
                        if (!stop) group.start_soon([&] { link(group, stop); });
                    }
                };
                chain::link(group, stop);
            });
            CHECK(yielded == 20);
        });
    }

    TEST_CASE("M12: work spreads over the workers") {
        run({.workers = 2}, [] {
            std::atomic<int> inside{0};
            std::atomic<bool> both{false};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 2; ++task)
                    group.start_soon([&] {
                        ++inside;
                        auto const until = std::chrono::steady_clock::now() + 20s;
                        while (inside < 2 && std::chrono::steady_clock::now() < until) {} // keeps its worker
                        if (inside == 2) both = true;
                    });
            });
            CHECK(both);
        });
    }

    TEST_CASE("M12: work that a busy worker has made ready is taken by others") {
        run({.workers = 2}, [] {
            gate opened;
            std::atomic<bool> ran{false};
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    opened.wait();
                    ran = true;
                });
                wait_all_tasks_blocked();
                opened.open();
                auto const until = std::chrono::steady_clock::now() + 20s;
                while (!ran && std::chrono::steady_clock::now() < until) {} // keeps its worker
                CHECK(ran);
            });
        });
    }

    TEST_CASE("TR1, G9, C31: who only waits, cancelled or not, uses less than five milliseconds of CPU a second") {
        if (slowdown > 1) return; // the sanitizers have threads of their own
        double const base = run_child("idle_briefly").cpu_seconds;
        double const idle = run_child("idle_long").cpu_seconds;
        CHECK(idle - base < 0.003 + 0.010); // 3 s; the rest is what two starts differ by
    }

    TEST_CASE("TR1: what only a busy worker may run does not keep the others awake") {
        if (slowdown > 1) return; // the sanitizers have threads of their own
        auto const cpu_time = [](int of) {
            ::rusage used{};
            ::getrusage(of, &used);
            return std::chrono::seconds(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   std::chrono::microseconds(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
        };
        run({.workers = 2}, [&] {
            no_migrate const here;
            gate opened;
            std::thread::id pinned_to;
            with_task_group([&](task_group& group) {
                // Until one of them is pinned to the worker that this task keeps busy.
                while (pinned_to != std::this_thread::get_id()) {
                    gate begun;
                    group.start_soon({.pinned = true}, [&] {
                        pinned_to = std::this_thread::get_id();
                        begun.open();
                        opened.wait();
                    });
                    begun.wait();
                }
                wait_all_tasks_blocked();
                opened.open();
                auto const others = [&] { return cpu_time(RUSAGE_SELF) - cpu_time(RUSAGE_THREAD); };
                auto const before = others();
                auto const until = std::chrono::steady_clock::now() + 500ms;
                while (std::chrono::steady_clock::now() < until) {} // keeps its worker
                CHECK(others() - before < 100ms);
            });
        });
    }

    TEST_CASE("TR73: a task that is woken while it is still leaving is resumed once, on its own stack") {
        run_test({.seeds = {0}, .times = 20}, [] {
            for (int time = 0; time < 100; ++time) {
                std::atomic<detail::fiber*> waiter{nullptr};
                std::atomic<std::uint64_t> epoch{0};
                std::atomic<int> wins{0};
                with_task_group([&](task_group& group) {
                    for (int waker = 0; waker < 2; ++waker)
                        group.start_soon([&] {
                            while (waiter == nullptr)
                                lowlevel::checkpoint();
                            if (detail::wake(*waiter, epoch, detail::wake_reason::event)) ++wins;
                        });
                    group.start_soon([&] {
                        detail::parking wait("test");
                        epoch = wait.epoch();
                        waiter = &wait.owner();
                        check(wait.suspend() == detail::wake_reason::event, "woken by the event");
                    });
                });
                check(wins == 1, "exactly one waker won");
            }
        });
    }

    TEST_CASE("M11: tasks that yield have their turns while ever more work comes from outside") {
        constexpr int tasks = 600; // more than a worker's ring holds
        constexpr int at_once = 200;
        run({.workers = 1}, [] {
            std::atomic<bool> over = false;
            std::atomic<int> under_way = 0;
            with_task_group([&](task_group& from_outside) {
                std::thread feeder([&] {
                    while (!over)
                        if (under_way < at_once) {
                            ++under_way;
                            from_outside.start_soon([&] {
                                auto const until = std::chrono::steady_clock::now() + 200us;
                                while (std::chrono::steady_clock::now() < until) {} // work
                                --under_way;
                            });
                        }
                });
                bool all_at_once = false;
                with_task_group([&](task_group& yielding) {
                    for (int task = 0; task < tasks; ++task)
                        yielding.start_soon([&] {
                            while (under_way < at_once && !all_at_once)
                                lowlevel::checkpoint();
                            all_at_once = true;
                            for (int turn = 0; turn < 10; ++turn)
                                lowlevel::checkpoint();
                        });
                });
                over = true; // not reached, if the feeder's tasks go before those that yield
                feeder.join();
            });
        });
    }
}
