// What never waits may be called by OS threads, while tasks wait for it on every worker.

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/condition_variable.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/future.hpp>
#include <weft/sync/latch.hpp>
#include <weft/sync/mutex.hpp>
#include <weft/sync/semaphore.hpp>
#include <weft/sync/wait_group.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

TEST_SUITE_BEGIN("sync.any_thread");

using namespace std::chrono_literals;
using weft::test::check;

namespace {

/// The body in a run, the other function in an OS thread at the same time, again and again. Not
/// under "sim", which knows nothing of threads.
template <class Outside, class Body>
void beside_a_thread(unsigned times, Outside const& outside, Body const& body) {
    weft::test::run_test({.seeds = {}, .times = times}, [&] {
        std::thread thread(outside);
        struct join {
            std::thread& thread;
            ~join() { thread.join(); }
        } const at_the_end{thread};
        body();
    });
}

/// The task waits for what the thread does, and destroys it as soon as it has come through.
template <class Primitive, class Open, class Wait>
void opened_outside(std::unique_ptr<Primitive> (*make)(), Open const& open, Wait const& wait) {
    weft::test::run_test({.seeds = {}, .times = 20}, [&] {
        for (int round = 0; round < 10; ++round) {
            auto owned = make();
            std::thread thread([&open, named = owned.get()] { open(*named); });
            wait(*owned);
            owned.reset();
            thread.join();
        }
    });
}

} // namespace

TEST_CASE("TI5, TR79: what a thread starts by the thousand runs, while somebody waits for quiet again and again") {
    constexpr int tasks = 20'000;
    weft::test::run_test({.seeds = {}, .times = 3}, [] {
        std::atomic<int> ran = 0;
        weft::with_task_group([&](weft::task_group& group) {
            std::atomic<bool> over = false;
            std::thread thread([&] {
                for (int number = 0; number < tasks; ++number)
                    group.start_soon([&] { ++ran; });
                over = true;
            });
            while (!over)
                weft::wait_all_tasks_blocked();
            thread.join();
        });
        check(ran == tasks, "each ran once");
    });
}

TEST_CASE("M14, M15: a thread lets a task through, which destroys what it waited for at once") {
    opened_outside<weft::event>([] { return std::make_unique<weft::event>(); },
                                [](weft::event& it) { it.set(); },
                                [](weft::event& it) { it.wait(); });
    opened_outside<weft::semaphore>([] { return std::make_unique<weft::semaphore>(0); },
                                    [](weft::semaphore& it) { it.release(); },
                                    [](weft::semaphore& it) { it.acquire(); });
    opened_outside<weft::latch>([] { return std::make_unique<weft::latch>(1); },
                                [](weft::latch& it) { it.count_down(); },
                                [](weft::latch& it) { it.wait(); });
    opened_outside<weft::wait_group>(
        [] {
            auto group = std::make_unique<weft::wait_group>();
            group->add();
            return group;
        },
        [](weft::wait_group& it) { it.done(); }, [](weft::wait_group& it) { it.wait(); });
    opened_outside<weft::capacity_limiter>(
        [] { return std::make_unique<weft::capacity_limiter>(0); },
        [](weft::capacity_limiter& it) { it.set_total_tokens(1); },
        [](weft::capacity_limiter& it) {
            it.acquire();
            it.release();
        });
    opened_outside<weft::promise<std::string>>(
        [] { return std::make_unique<weft::promise<std::string>>(); },
        [](weft::promise<std::string>& it) { it.set_value("a value that is not short at all"); },
        [](weft::promise<std::string>& it) {
            check(it.get_future().get() == "a value that is not short at all", "the value");
        });
}

TEST_CASE("M14, CL12: threads change the total and hand tokens around while tasks borrow") {
    constexpr int most = 5;
    weft::capacity_limiter limiter(2);
    std::atomic<int> inside = 0;
    std::atomic<bool> crowded = false;
    auto const use = [&] {
        if (++inside > most) crowded = true;
    };
    beside_a_thread(
        10,
        [&] {
            for (int step = 0; step < 300; ++step) {
                limiter.set_total_tokens(step % (most + 1));
                int const borrower = 0;
                if (limiter.try_acquire_on_behalf_of(&borrower)) {
                    use();
                    --inside;
                    limiter.release_on_behalf_of(&borrower);
                }
                auto const seen = limiter.statistics();
                if (seen.borrowers.size() != std::size_t(seen.borrowed_tokens) ||
                    (seen.tasks_waiting > 0 && seen.borrowed_tokens < seen.total_tokens))
                    crowded = true;
            }
            limiter.set_total_tokens(2);
        },
        [&] {
            weft::with_task_group([&](weft::task_group& group) {
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&, task] {
                        for (int step = 0; step < 20; ++step) {
                            auto const patience = step % 4 == 3 ? 20us * task : 1h;
                            weft::move_on_after(patience, [&] {
                                limiter.acquire();
                                use();
                                weft::lowlevel::cancel_shielded_checkpoint();
                                --inside;
                                limiter.release();
                            });
                        }
                    });
            });
        });
    CHECK_FALSE(crowded);
    CHECK(limiter.borrowed_tokens() == 0);
    CHECK(limiter.statistics().tasks_waiting == 0);
}

TEST_CASE("M14, SM3: permits that threads release all arrive, whoever gives up waiting for them") {
    constexpr int permits = 300;
    weft::semaphore semaphore(0);
    std::atomic<int> taken = 0;
    beside_a_thread(
        10,
        [&] {
            for (int released = 0; released < permits; ++released)
                semaphore.release();
        },
        [&] {
            taken = 0;
            weft::with_task_group([&](weft::task_group& group) {
                for (int task = 0; task < 6; ++task)
                    group.start_soon([&, task] {
                        while (taken < permits)
                            if (weft::move_on_after(10us * task, [&] { semaphore.acquire(); }))
                                ++taken;
                    });
            });
        });
    CHECK(semaphore.value() == 0);
    CHECK(semaphore.statistics().tasks_waiting == 0);
}

TEST_CASE("M13, M14: a thread sees statistics that fit together, of all that is in use") {
    weft::event happens;
    weft::semaphore permits(2, {.max_value = 2});
    weft::condition_variable changed;
    std::atomic<bool> over = false, wrong = false;
    beside_a_thread(
        5,
        [&] {
            while (!over) {
                auto const condition = changed.statistics();
                wrong =
                    wrong || happens.statistics().tasks_waiting > 8 || permits.value() > 2 ||
                    permits.statistics().tasks_waiting > 8 || condition.tasks_waiting > 8 ||
                    condition.lock_statistics.locked != condition.lock_statistics.owner.has_value();
            }
            over = false; // for the next run
        },
        [&] {
            weft::with_task_group([&](weft::task_group& group) {
                for (int task = 0; task < 8; ++task)
                    group.start_soon([&] {
                        for (int step = 0; step < 50; ++step) {
                            permits.acquire();
                            weft::lowlevel::checkpoint();
                            permits.release();
                            std::unique_lock const guard(changed.lock());
                            changed.notify();
                            weft::move_on_after(10us, [&] { changed.wait(); });
                            weft::move_on_after(0ns, [&] { happens.wait(); });
                        }
                    });
            });
            over = true;
        });
    CHECK_FALSE(wrong);
}

TEST_SUITE_END();
