#include <weft/sync/from_thread.hpp>

#include "each_runtime.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/to_thread.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

using namespace std::chrono_literals;

namespace {

// The function's task gets no stack, which is nothing to the first one.
weft::test::child_program const no_stack_for_it("no_stack_for_a_function_of_a_thread", [] {
    long pages = 0;
    std::FILE* const statm = std::fopen("/proc/self/statm", "r");
    if (statm == nullptr || std::fscanf(statm, "%ld", &pages) != 1) std::abort();
    std::fclose(statm);
    rlimit const limit{rlim_t(pages) * 4096 + (110 << 20), RLIM_INFINITY};
    ::setrlimit(RLIMIT_AS, &limit);
    weft::run({.backend = "sim", .stack_size = 64 << 20}, [] {
        weft::to_thread::run_sync({.abandon_on_cancel = true}, [] {
            try {
                weft::from_thread::run([] { std::puts("it ran"); });
            } catch (std::exception const& error) {
                std::puts(error.what());
            }
        });
        if (!weft::move_on_after(1ms, [] { weft::sleep_forever(); })) std::puts("the first task goes on");
    });
});

} // namespace

TEST_SUITE_BEGIN("sync.from_thread");

TEST_CASE("F1, F5: the function runs in the waiting task, and may wait") {
    on_each_runtime([] {
        auto const host = weft::get_current_task().id;
        auto const id = weft::to_thread::run_sync([] {
            return weft::from_thread::run([] {
                weft::sleep(1ms);
                weft::lowlevel::checkpoint();
                return weft::get_current_task().id;
            });
        });
        CHECK(id == host);
        CHECK(weft::to_thread::run_sync([] {
            return throws<std::domain_error>(
                [] { weft::from_thread::run([] { throw std::domain_error("no"); }); });
        }));
        CHECK(weft::to_thread::run_sync([] {
            return throws<int>([] { weft::from_thread::run([] { throw 7; }); }) &&
                   throws<int>([] { weft::from_thread::run_sync([] { throw 7; }); });
        }));
        CHECK(throws<int>([] { // all the way
            weft::to_thread::run_sync([] { weft::from_thread::run([] { throw 7; }); });
        }));
    });
}

TEST_CASE("F1: a thread may come back often, and send calls to further threads") {
    on_each_runtime([] {
        int const sum = weft::to_thread::run_sync([] {
            int total = 0;
            for (int step = 0; step < 20; ++step)
                total += weft::from_thread::run([](int number) {
                    return weft::to_thread::run_sync([number] { return number; });
                }, step);
            return total;
        });
        CHECK(sum == 190);
    });
}

TEST_CASE("F2: run_sync() is not reached by cancellation") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        std::atomic<bool> ran = false;
        scope.run([&] {
            weft::to_thread::run_sync([&] {
                weft::from_thread::run_sync([&] {
                    scope.cancel();
                    weft::lowlevel::checkpoint_if_cancelled();
                    ran = true;
                });
            });
        });
        CHECK(ran);
    });
}

TEST_CASE("F3: elsewhere there is no way in") {
    CHECK(throws<weft::no_event_loop_error>([] { weft::from_thread::run([] {}); }));
    CHECK(throws<weft::no_event_loop_error>([] { weft::from_thread::check_cancelled(); }));
    on_each_runtime(
        [] { CHECK(throws<weft::no_event_loop_error>([] { weft::from_thread::run_sync([] {}); })); });
}

TEST_CASE("F3: a task of a run inside the call is not the call, whichever thread it is on") {
    std::atomic<int> refusals = 0;
    auto const is_refused = [&] {
        using weft::from_thread::run, weft::from_thread::run_sync, weft::from_thread::check_cancelled;
        refusals += throws<weft::no_event_loop_error>([] { run([] {}); });
        refusals += throws<weft::no_event_loop_error>([] { run_sync([] {}); });
        refusals += throws<weft::no_event_loop_error>([] { check_cancelled(); });
    };
    weft::run([&] {
        weft::to_thread::run_sync([&] {
            for (unsigned const workers : {1u, 2u})
                weft::run({.workers = workers}, [&] {
                    weft::with_task_group([&](weft::task_group& group) {
                        for (int task = 0; task < 4; ++task)
                            group.start_soon(is_refused);
                    });
                });
            weft::from_thread::check_cancelled(); // here it is the call again
            weft::from_thread::run([] {});
        });
    });
    CHECK(refusals == 2 * 4 * 3);
}

TEST_CASE("F4: the function is under the scopes of the waiting task, whose scope takes the cancellation") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        std::atomic<bool> in_function = false;
        std::atomic<bool> in_thread = false;
        scope.run([&] {
            weft::to_thread::run_sync([&] {
                try {
                    weft::from_thread::run([&] {
                        scope.cancel();
                        try {
                            weft::sleep_forever();
                        } catch (weft::cancelled const&) {
                            in_function = true;
                            throw;
                        }
                    });
                } catch (weft::cancelled const&) {
                    in_thread = true;
                    throw;
                }
            });
        });
        CHECK(in_function);
        CHECK(in_thread);
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("F7: check_cancelled() throws once the waiting task is cancelled, and its scope takes it") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([] {
                    weft::to_thread::run_sync([] {
                        for (;;) {
                            weft::from_thread::check_cancelled();
                            std::this_thread::yield();
                        }
                    });
                });
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
        });
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("F7: a cancellation is seen in the thread from when it was made, wherever the waiting task is") {
    on_each_runtime([] {
        for (bool const abandon : {false, true}) {
            for (bool const by_its_task : {false, true}) {
                if (abandon && by_its_task) continue; // it has a task of its own
                weft::cancel_scope scope;
                std::atomic<bool> missed = false;
                scope.run([&] {
                    weft::to_thread::run_sync({.abandon_on_cancel = abandon}, [&] {
                        if (by_its_task)
                            weft::from_thread::run_sync([&] { scope.cancel("enough"); });
                        else
                            scope.cancel("enough");
                        weft::from_thread::check_cancelled();
                        missed = true;
                    });
                });
                CHECK_FALSE(missed);
                CHECK(scope.cancelled_caught());
            }
        }
    });
}

TEST_CASE("F7: the reason of a cancellation reaches the thread, also while the waiting task's worker is busy") {
    weft::run({.workers = 1}, [] {
        weft::cancel_scope scope;
        std::string reason;
        std::latch go(1);
        std::latch seen(1);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    weft::to_thread::run_sync([&] {
                        go.wait();
                        try {
                            weft::from_thread::check_cancelled();
                        } catch (weft::cancelled const& told) {
                            reason = told.reason();
                        }
                        seen.count_down();
                    });
                });
            });
            weft::wait_all_tasks_blocked();
            scope.cancel("enough");
            go.count_down();
            seen.wait(); // keeps the only worker
        });
        CHECK(reason.find("enough") != reason.npos);
    });
}

TEST_CASE("F7: an outer cancellation that a shield keeps out is not seen in the thread") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        std::atomic<bool> seen = false;
        scope.run([&] {
            weft::shielded([&] {
                weft::to_thread::run_sync([&] {
                    scope.cancel();
                    try {
                        weft::from_thread::check_cancelled();
                        weft::from_thread::run([] { weft::lowlevel::checkpoint(); });
                    } catch (weft::cancelled const&) {
                        seen = true;
                        throw;
                    }
                });
            });
        });
        CHECK_FALSE(seen);
    });
}

namespace {

// What a thread that may outlive everything else tells the test.
struct report {
    std::atomic<int> value = 0;
    std::atomic<bool> began = false, cancelled = false, refused = false, over = false;
    weft::event gate;
};

} // namespace

TEST_CASE("F5, F6: under abandon_on_cancel the function has a task of its own, and goes on when the "
          "waiting task has left") {
    on_each_runtime([] {
        auto const told = std::make_shared<report>();
        auto const host = weft::get_current_task().id;
        weft::cancel_scope scope;
        scope.run([&] {
            weft::to_thread::run_sync({.abandon_on_cancel = true}, [&scope, host, told] {
                told->value = weft::from_thread::run([&scope, host, told] {
                    bool const in_host = weft::get_current_task().id == host;
                    scope.cancel();
                    told->began = true; // from here on the scope may be gone
                    told->gate.wait();
                    return in_host ? 1 : 7;
                });
                told->over = true;
            });
        });
        weft::test::check(scope.cancelled_caught(), "the task has left");
        weft::test::check(told->value == 0, "the function has not ended");
        while (!told->began)
            weft::lowlevel::checkpoint();
        told->gate.set();
        while (!told->over)
            weft::lowlevel::checkpoint();
        weft::test::check(told->value == 7, "the thread has got its result");
    });
}

TEST_CASE("F6, F12, E11: what an abandoned call still has running is cancelled last of all, and after "
          "that nothing is taken") {
    std::vector<std::shared_ptr<report>> reports;
    on_each_runtime([&] {
        auto const told = reports.emplace_back(std::make_shared<report>());
        weft::cancel_scope scope;
        scope.run([&] {
            weft::to_thread::run_sync({.abandon_on_cancel = true}, [&scope, told] {
                try {
                    weft::from_thread::run([&scope, told] {
                        scope.cancel();
                        told->began = true; // from here on the scope may be gone
                        weft::sleep_forever();
                    });
                } catch (weft::cancelled const&) { // for this thread alone
                    told->cancelled = true;
                }
                told->refused = throws<weft::run_finished_error>(
                    [] { weft::from_thread::run_sync([] {}); });
                told->over = true;
            });
        });
        while (!told->began)
            weft::lowlevel::checkpoint();
        weft::test::check(!told->cancelled, "not before the end");
    });
    for (auto const& told : reports) {
        while (!told->over)
            std::this_thread::yield();
        CHECK(told->cancelled);
        CHECK(told->refused);
    }
}

TEST_CASE("F7: check_cancelled() throws also when the task has left the call") {
    on_each_runtime([] {
        auto const told = std::make_shared<report>();
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    weft::to_thread::run_sync({.abandon_on_cancel = true}, [told] {
                        told->gate.set();
                        while (!told->began) // the task has left
                            std::this_thread::yield();
                        try {
                            weft::from_thread::check_cancelled();
                        } catch (weft::cancelled const&) {
                            told->cancelled = true;
                        }
                        told->over = true;
                    });
                });
                told->began = true;
            });
            told->gate.wait();
            scope.cancel();
        });
        while (!told->over)
            weft::lowlevel::checkpoint();
        weft::test::check(told->cancelled, "the thread hears of it");
    });
}

TEST_CASE("F10: run_sync() keeps no other worker from running tasks") {
    weft::test::run_test({.workers = {2, 4}, .seeds = {}}, [] {
        std::atomic<bool> inside = false, seen = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                while (!inside)
                    weft::lowlevel::checkpoint();
                seen = true;
            });
            weft::to_thread::run_sync([&] {
                weft::from_thread::run_sync([&] {
                    inside = true;
                    while (!seen) // the other task runs now, or never
                        std::this_thread::yield();
                });
            });
        });
    });
}

TEST_CASE("F10: with one worker nothing else runs during run_sync()") {
    weft::test::run_test({.workers = {1}}, [] {
        std::atomic<int> turns = 0, during = 0;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (;;) {
                    ++turns;
                    weft::lowlevel::checkpoint();
                }
            });
            weft::to_thread::run_sync([&] {
                weft::from_thread::run_sync([&] {
                    int const before = turns;
                    for (int look = 0; look < 100'000; ++look)
                        if (turns != before) during = 1;
                });
            });
            group.cancel();
        });
        weft::test::check(turns > 0 && during == 0, "no turn in between");
    });
}

namespace {

// What the threads of one round, which may outlive it, tell the test.
struct requests_told {
    std::atomic<int> begun = 0, answers = 0, over = 0;         // over: in one of these three ways
    std::atomic<int> finished = 0, cancelled = 0, refused = 0; // refused: run_finished_error
    std::atomic<bool> wrong = false;
};

// The thread's side: five requests; the last one of those that do not end by themselves waits for ever.
void make_requests(int call, bool ends_by_itself, requests_told& told) {
    ++told.begun;
    try {
        for (int step = 0; step < 5; ++step) {
            int const got = weft::from_thread::run([number = call * 10 + step, stays = !ends_by_itself && step == 4] {
                weft::lowlevel::checkpoint();
                if (stays) weft::sleep_forever();
                return number;
            });
            if (got != call * 10 + step) told.wrong = true;
            ++told.answers;
        }
        ++told.finished;
    } catch (weft::cancelled const&) {
        ++told.cancelled;
        ++told.over;
        throw; // to the task, if that is still there
    } catch (weft::run_finished_error const&) {
        ++told.refused;
    }
    ++told.over;
}

// Two calls, which are cancelled when threads have got so many answers.
void cancel_after_answers(int answers, bool abandon, std::shared_ptr<requests_told> const& told) {
    weft::cancel_scope scopes[2];
    weft::with_task_group([&](weft::task_group& group) {
        for (int call = 0; call < 2; ++call)
            group.start_soon([&, call] {
                scopes[call].run([&] {
                    weft::to_thread::run_sync({.abandon_on_cancel = abandon}, [call, told] {
                        make_requests(call, call == 0, *told);
                    });
                });
            });
        while (told->answers < answers)
            weft::lowlevel::checkpoint();
        for (weft::cancel_scope& scope : scopes)
            scope.cancel();
    });
    weft::test::check(scopes[1].cancelled_caught(), "it does not end by itself");
    if (!abandon) weft::test::check(told->over == told->begun, "no thread is left");
}

} // namespace

TEST_CASE("F9, F11: requests against cancellation: every thread gets its answers, a cancellation or, abandoned, a "
          "refusal") {
    for (bool const abandon : {false, true}) {
        std::vector<std::shared_ptr<requests_told>> rounds;
        on_each_runtime([&] {
            for (int round = 0; round < 10; ++round) {
                auto const told = std::make_shared<requests_told>();
                rounds.push_back(told);
                cancel_after_answers(round, abandon, told);
            }
        });
        int finished = 0, cancelled = 0;
        for (auto const& told : rounds) {
            while (told.use_count() > 1 || told->over != told->begun) // a thread may have to begin still
                std::this_thread::yield();
            CHECK_FALSE(told->wrong);
            CHECK(told->finished + told->cancelled + told->refused == told->over);
            CHECK((abandon || told->refused == 0));
            finished += told->finished;
            cancelled += told->cancelled;
        }
        CHECK(finished != 0);
        CHECK(cancelled != 0);
    }
}

TEST_CASE("F1: a function whose task gets no stack fails for its thread alone") {
    if (weft::test::slowdown > 1) return; // sanitizers reserve more address space than any limit
    auto const end = weft::test::run_child("no_stack_for_a_function_of_a_thread");
    CHECK(end.exit_code == 0);
    CHECK_FALSE(end.says("it ran"));
    CHECK(end.says("bad_alloc"));
    CHECK(end.says("the first task goes on"));
}

TEST_SUITE_END();
