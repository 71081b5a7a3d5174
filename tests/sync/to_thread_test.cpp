#include <weft/sync/to_thread.hpp>

#include "each_runtime.hpp"
#include "support/address_space.hpp"
#include "support/child_process.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/context_var.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/from_thread.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <latch>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>

namespace {

struct not_a_std_exception {
    int number;
};

// How many there are, those that were moved from included.
struct counted {
    explicit counted(std::atomic<int>& of) : there(&of) { ++*there; }
    counted(counted const& other) : there(other.there) { ++*there; }
    counted& operator=(counted const&) = default;
    ~counted() { --*there; }

    std::atomic<int>* there;
};

// Opened by the test, waited for by a pool thread.
class door {
public:
    void open() { latch_.count_down(); }
    void pass() { latch_.wait(); }

private:
    std::latch latch_{1};
};

weft::test::child_program const calls_without_threads("calls without threads", [] {
    weft::run({.workers = 1}, [] {
        weft::test::allow_more_address_space(1 << 20); // no thread's stack fits in there
        try {
            weft::to_thread::run_sync([] {});
        } catch (std::system_error const& failure) {
            std::printf("EAGAIN: %d, %s\n", failure.code() == std::errc::resource_unavailable_try_again,
                        failure.what());
        }
    });
});

} // namespace

TEST_SUITE_BEGIN("sync.to_thread");

TEST_CASE("T1: the call runs in another thread, and its value comes back") {
    on_each_runtime([] {
        auto const here = std::this_thread::get_id();
        auto const [thread, length] = weft::to_thread::run_sync(
            [](std::string text, std::unique_ptr<int> more) {
                return std::pair(std::this_thread::get_id(), text.size() + std::size_t(*more));
            },
            "weft", std::make_unique<int>(2));
        CHECK(thread != here);
        CHECK(length == 6);
        auto const box = weft::to_thread::run_sync([] { return std::make_unique<int>(3); });
        CHECK(*box == 3);
        weft::to_thread::run_sync([] {});
    });
}

TEST_CASE("T1: nothing of the value stays with the thread") {
    on_each_runtime([] {
        std::atomic<int> there = 0;
        int left = 0;
        for (int round = 0; round < 300; ++round) {
            counted const value = weft::to_thread::run_sync([&] { return counted(there); });
            left += there - 1;
        }
        CHECK(left == 0);
    });
}

TEST_CASE("T1, T14: exceptions of any type come back") {
    on_each_runtime([] {
        CHECK(throws<std::domain_error>(
            [] { weft::to_thread::run_sync([] { throw std::domain_error("no"); }); }));
        CHECK(throws<not_a_std_exception>(
            [] { weft::to_thread::run_sync([]() -> int { throw not_a_std_exception{1}; }); }));
    });
}

TEST_CASE("T1: after a deadline that has passed while the task computed the function does not run") {
    for (unsigned const workers : {1u, 2u})
        weft::run({.workers = workers}, [] {
            for (bool const abandon : {false, true}) {
                std::atomic<bool> ran = false;
                weft::cancel_scope scope({.deadline = weft::current_time() + std::chrono::milliseconds(1)});
                scope.run([&] {
                    while (weft::current_time() < scope.deadline()) {}
                    weft::to_thread::run_sync(weft::to_thread::options{.abandon_on_cancel = abandon},
                                              [&] { ran = true; });
                });
                CHECK(scope.cancelled_caught());
                CHECK_FALSE(ran);
            }
        });
}

TEST_CASE("T1: a deadline that has a timer counts, too, although nobody has run the timers since") {
    auto const call_late = [](weft::cancel_scope const& scope, int& ran) {
        while (weft::current_time() < scope.deadline()) {}
        weft::to_thread::run_sync([&] { ++ran; });
    };
    for (unsigned const workers : {1u, 2u})
        weft::run({.workers = workers}, [&] {
            int ran = 0;
            for (int time = 0; time < 20; ++time) {
                weft::cancel_scope yielded({.deadline = weft::current_time() + std::chrono::milliseconds(1)});
                yielded.run([&] {
                    weft::lowlevel::checkpoint();
                    call_late(yielded, ran);
                });
                weft::cancel_scope of_parent({.deadline = weft::current_time() + std::chrono::milliseconds(1)});
                of_parent.run([&] {
                    weft::with_task_group([&](weft::task_group& group) {
                        group.start_soon([&] { call_late(of_parent, ran); });
                    });
                });
                CHECK(yielded.cancelled_caught());
                CHECK(of_parent.cancelled_caught());
            }
            CHECK(ran == 0);
        });
}

TEST_CASE("T1: in a cancelled scope the function does not run") {
    on_each_runtime([] {
        std::atomic<bool> ran = false;
        weft::cancel_scope scope;
        scope.run([&] {
            scope.cancel();
            weft::to_thread::run_sync([&] { ran = true; });
        });
        CHECK(scope.cancelled_caught());
        CHECK_FALSE(ran);
    });
}

TEST_CASE("T1: where no thread can be had for a call, the error says so") {
    if (weft::test::slowdown > 1) return; // the sanitizers need address space without bounds
    auto const end = weft::test::run_child("calls without threads");
    CHECK(end.exit_code == 0);
    CHECK(end.output.find("EAGAIN: 1, to_thread.run_sync: no thread for the call") == 0);
}

TEST_CASE("T2: cancelled while it waits for a token, the function does not run") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(0);
        std::atomic<bool> ran = false;
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    weft::to_thread::run_sync({.limiter = &limiter}, [&] { ran = true; });
                });
            });
            weft::wait_all_tasks_blocked();
            CHECK(limiter.statistics().tasks_waiting == 1);
            scope.cancel();
        });
        CHECK_FALSE(ran);
        CHECK(limiter.statistics().tasks_waiting == 0);
        CHECK(limiter.borrowed_tokens() == 0);
    });
}

TEST_CASE("T3: once begun, the call is finished first and the cancellation comes afterwards") {
    on_each_runtime([] {
        door gate;
        std::atomic<int> value = 0;
        std::atomic<bool> went_on = false;
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    value = weft::to_thread::run_sync([&] {
                        gate.pass();
                        return 5;
                    });
                    weft::lowlevel::checkpoint();
                    went_on = true;
                });
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            weft::wait_all_tasks_blocked();
            CHECK(value == 0);
            gate.open();
        });
        CHECK(value == 5);
        CHECK_FALSE(went_on);
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("T4, T5: an abandoned call lets go at once and keeps its token to the end") {
    on_each_runtime([] {
        auto const gate = std::make_shared<door>();
        auto const begun = std::make_shared<weft::event>(); // one that has not begun may be skipped
        weft::capacity_limiter limiter(1);
        auto const watched = std::make_shared<int>(1);
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    weft::to_thread::run_sync({.abandon_on_cancel = true, .limiter = &limiter},
                                              [gate, begun, watched] {
                                                  begun->set();
                                                  gate->pass();
                                                  throw std::runtime_error("dropped");
                                              });
                });
            });
            begun->wait();
            scope.cancel();
        });
        CHECK(scope.cancelled_caught());
        CHECK(limiter.borrowed_tokens() == 1);
        gate->open();
        limiter.acquire(); // comes when the thread has finished
        limiter.release();
        CHECK(watched.use_count() == 1);
    });
}

TEST_CASE("T5, T14: an abandoned call whose thread ends itself gives its token back") {
    on_each_runtime([] {
        auto const gate = std::make_shared<door>();
        auto const begun = std::make_shared<weft::event>();
        weft::capacity_limiter limiter(1);
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    weft::to_thread::run_sync({.abandon_on_cancel = true, .limiter = &limiter},
                                              [gate, begun] {
                                                  begun->set();
                                                  gate->pass();
                                                  ::pthread_exit(nullptr);
                                              });
                });
            });
            begun->wait();
            scope.cancel();
        });
        CHECK(limiter.borrowed_tokens() == 1);
        gate->open();
        limiter.acquire();
        limiter.release();
        CHECK(weft::to_thread::run_sync([] { return 5; }) == 5);
    });
}

TEST_CASE("E4, T4, T15: run() returns although an abandoned call still runs, whose end is of no "
          "interest") {
    std::vector<std::shared_ptr<door>> gates;
    on_each_runtime([&] {
        auto const gate = std::make_shared<door>();
        gates.push_back(gate);
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    weft::to_thread::run_sync({.abandon_on_cancel = true}, [gate] { gate->pass(); });
                });
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
        });
    });
    for (auto const& gate : gates)
        gate->open();
    for (auto const& gate : gates)
        while (gate.use_count() > 1)
            std::this_thread::yield();
}

TEST_CASE("T7: the default limiter is one a run, with 40 tokens") {
    on_each_runtime([] {
        auto& limiter = weft::to_thread::current_default_thread_limiter();
        CHECK(limiter.total_tokens() == 40);
        CHECK(&limiter == &weft::to_thread::current_default_thread_limiter());
        CHECK(weft::to_thread::run_sync([&] { return limiter.borrowed_tokens(); }) == 1);
        CHECK(limiter.borrowed_tokens() == 0);
        limiter.set_total_tokens(1);
    });
}

TEST_CASE("T10: the thread is no task") {
    on_each_runtime([] {
        weft::event gate;
        CHECK(weft::to_thread::run_sync([&] {
            return throws<weft::no_event_loop_error>([&] { gate.wait(); }) &&
                   throws<weft::no_event_loop_error>([] { weft::get_current_task(); });
        }));
    });
}

TEST_CASE("T13: the function and what it returned are destroyed promptly") {
    on_each_runtime([] {
        auto const watched = std::make_shared<int>(1);
        weft::to_thread::run_sync([kept = watched] { return kept; });
        CHECK(watched.use_count() == 1);
    });
}

TEST_CASE("T15: completion against cancellation: the value comes, or the scope is left") {
    often_on_each_runtime(20, [] {
        for (bool abandon : {false, true}) {
            weft::cancel_scope scope;
            std::atomic<bool> returned = false;
            std::atomic<bool> ran = false;
            weft::with_task_group([&](weft::task_group& group) {
                auto const flag = std::make_shared<std::atomic<bool>>(false);
                group.start_soon([&, flag] {
                    scope.run([&] {
                        weft::to_thread::run_sync({.abandon_on_cancel = abandon},
                                                  [flag] { *flag = true; });
                        returned = true;
                        ran = flag->load();
                    });
                });
                weft::lowlevel::checkpoint();
                scope.cancel();
            });
            if (returned) CHECK(ran);
        }
    });
}

TEST_CASE("T1: many calls at once, bounded by the limiter") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(3);
        std::atomic<int> inside = 0;
        std::atomic<int> most = 0;
        std::atomic<int> done = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int call = 0; call < 60; ++call)
                group.start_soon([&] {
                    weft::to_thread::run_sync({.limiter = &limiter}, [&] {
                        int const now = ++inside;
                        int seen = most;
                        while (seen < now && !most.compare_exchange_weak(seen, now)) {}
                        std::this_thread::yield();
                        --inside;
                        ++done;
                    });
                });
        });
        CHECK(done == 60);
        CHECK(most <= 3);
    });
}

TEST_CASE("run_sync() needs a task") {
    CHECK(throws<weft::no_event_loop_error>([] { weft::to_thread::run_sync([] {}); }));
    CHECK(throws<weft::no_event_loop_error>(
        [] { weft::to_thread::current_default_thread_limiter(); }));
}

TEST_CASE("T15: under sim the clock does not jump over a call, nor is a run that waits for one a deadlock") {
    for (std::uint64_t const seed : {0, 1, 2, 3})
        weft::run({.backend = "sim", .seed = seed}, [] {
            auto const start = weft::current_time();
            bool returned = false;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    weft::sleep(std::chrono::hours(1));
                    weft::test::check(returned, "the call ends before the timer comes");
                });
                weft::to_thread::run_sync([] {
                    auto const both_wait = [] {
                        auto const tasks = weft::get_running_tasks();
                        return std::all_of(tasks.begin(), tasks.end(), [](weft::task_info const& task) {
                            return task.state == weft::task_state::waiting;
                        });
                    };
                    for (int seen = 0; seen < 100;) // the worker has nothing to do
                        seen += both_wait() ? 1 : 0;
                });
                returned = true;
                weft::test::check(weft::current_time() == start, "no time has passed");
            });
            weft::to_thread::run_sync([] {}); // nothing but the call
        });
}

TEST_CASE("F7: under sim a deadline comes also while a thread waits for it") {
    weft::run({.backend = "sim"}, [] {
        bool seen = false;
        weft::move_on_after(std::chrono::milliseconds(30), [&] {
            weft::to_thread::run_sync([&] {
                try {
                    for (;;)
                        weft::from_thread::check_cancelled();
                } catch (weft::cancelled const&) {
                    seen = true;
                    throw;
                }
            });
        });
        weft::test::check(seen, "the thread hears of the deadline");
    });
}

TEST_CASE("F4: under sim time passes for what a thread has the task do") {
    weft::run({.backend = "sim"}, [] {
        auto const start = std::chrono::steady_clock::now();
        weft::to_thread::run_sync(
            [] { weft::from_thread::run([] { weft::sleep(std::chrono::hours(1)); }); });
        weft::test::check(std::chrono::steady_clock::now() - start < std::chrono::minutes(1),
                          "virtual time");
    });
}

TEST_CASE("T11, F8: a call has a copy of the task's context, and what comes back a copy of the thread's") {
    static weft::context_var<int> number("number", 0);
    on_each_runtime([] {
        auto const mine = number.set(1);
        std::vector<int> seen;
        weft::to_thread::run_sync([&] {
            seen.push_back(number.get());
            number.set(2);
            weft::from_thread::run([&] {
                seen.push_back(number.get());
                number.set(3);
                weft::lowlevel::checkpoint();
                seen.push_back(number.get());
            });
            seen.push_back(number.get());
        });
        seen.push_back(number.get());
        weft::test::check(seen == std::vector{1, 2, 3, 2, 1}, "changes do not flow back");
        weft::with_task_group([&](weft::task_group& group) { // nor to the next call of the thread
            number.set(7);
            group.start_soon([] {
                weft::to_thread::run_sync([] { weft::test::check(number.get() == 7, "its own"); });
            });
        });
        weft::to_thread::run_sync([] { weft::test::check(number.get() == 7, "its own"); });
    });
}

TEST_CASE("T6: a call may wait for another one under another limiter") {
    on_each_runtime([] {
        weft::capacity_limiter outer(1), inner(1);
        int depth = 0;
        weft::to_thread::run_sync({.limiter = &outer}, [&] {
            ++depth;
            weft::from_thread::run(
                [&] { weft::to_thread::run_sync({.limiter = &inner}, [&] { ++depth; }); });
        });
        weft::test::check(depth == 2, "both ran");
        weft::test::check(outer.borrowed_tokens() == 0 && inner.borrowed_tokens() == 0, "tokens are back");
    });
}

TEST_CASE("T16: a task that blocks its worker holds up nothing that another worker can take") {
    weft::test::run_test({.workers = {2, 4}, .seeds = {}}, [] {
        weft::event wake;
        std::latch ran(3);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                wake.wait();
                ran.count_down();
            });
            group.start_soon([&] {
                weft::lowlevel::checkpoint();
                ran.count_down();
            });
            weft::wait_all_tasks_blocked(); // the first one waits
            group.start_soon([&] { ran.count_down(); });
            wake.set();
            ran.wait(); // the OS thread, with all its queues
        });
    });
}

TEST_SUITE_END();
