// What is done wrong is refused by an error whose text says what it was and which task did it;
// everything goes on working afterwards.

#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <typeinfo>
#include <vector>

using namespace weft;
using namespace weft::test;

namespace {

/// That error and no derived one, with all of that in its text.
template <class Failure, class Call>
void refuses(std::vector<std::string> const& naming, Call&& call) {
    std::string said = "nothing";
    try {
        call();
    } catch (Failure const& refused) {
        if (typeid(Failure) == typeid(std::logic_error)) // task_failed has the error nested in it
            check(typeid(refused) == typeid(Failure),
                  std::string("another type: ") + refused.what());
        said = refused.what();
    }
    for (std::string const& part : naming)
        check(said.find(part) != std::string::npos, "expected '" + part + "', got: " + said);
}

template <class Body> void in_task(char const* name, Body const& body) {
    with_task_group([&](task_group& group) { group.start_soon(task_options{.name = name}, body); });
}

/// Every way into a group that starts a task.
template <class Call> void each_spawn(task_group& group, Call const& call) {
    auto const ran = [] { check(false, "the callable is not called"); };
    call([&] { group.start_soon(ran); });
    call([&] { group.start_soon(task_options{.name = "never"}, ran); });
    call([&] { group.create_task(ran); });
    call([&] { group.start([&](task_status<>&) { ran(); }); });
}

} // namespace

TEST_SUITE("runtime.misuse") {

    TEST_CASE("E5: outside of a run the error names the call that was made, not one inside it") {
        using namespace std::chrono_literals;
        auto const names = [](std::string const& call, auto&& made) {
            refuses<no_event_loop_error>({"@" + call + " needs a task"}, [&] {
                try {
                    made();
                } catch (no_event_loop_error const& refused) { // so that the begin of the text counts
                    throw no_event_loop_error("@" + std::string(refused.what()));
                }
            });
        };
        names("lowlevel::checkpoint", [] { lowlevel::checkpoint(); });
        names("sleep", [] { weft::sleep(0ns); });
        names("sleep", [] { weft::sleep(1ns); });
        names("sleep_until", [] { sleep_until(current_time()); });
        names("sleep_until", [] { sleep_until(current_time() + 1h); });
        names("sleep_forever", [] { sleep_forever(); });
        names("cancel_scope::run", [] { cancel_scope().run([] {}); });
        names("move_on_at", [] { move_on_at(current_time(), [] {}); });
        names("move_on_after", [] { move_on_after(1h, true, [] {}); });
        names("fail_at", [] { fail_at(current_time(), true, [] {}); });
        names("fail_after", [] { fail_after(1h, [] {}); });
        names("shielded", [] { shielded([] {}); });
        names("task_group::run", [] { task_group().run([] {}); });
        names("with_task_group", [] { with_task_group([] {}); });
    }

    TEST_CASE("C13: a scope entered twice names the task that enters it again") {
        run_test([] {
            cancel_scope scope;
            scope.run([&] {
                in_task("intruder", [&] {
                    refuses<std::logic_error>(
                        {"a cancel_scope was entered twice", "task 'intruder'"},
                        [&] { scope.run([] { check(false, "not entered"); }); });
                    lowlevel::checkpoint();
                });
            });
            in_task("late", [&] {
                refuses<std::logic_error>({"entered twice", "task 'late'"},
                                          [&] { scope.run([] {}); });
                check(move_on_after(duration::max(), [] { lowlevel::checkpoint(); }), "it goes on");
            });
        });
    }

    TEST_CASE(
        "C13, C15: a scope that is cancelled and entered by two tasks cuts short the first alone") {
        run_test({.times = 20}, [] {
            cancel_scope scope;
            int entered = 0;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    check(!scope.run([&] {
                        ++entered;
                        sleep_forever();
                    }),
                          "cut short");
                });
                wait_all_tasks_blocked();
                group.start_soon([&] {
                    check_throws<std::logic_error>([&] { scope.run([&] { ++entered; }); },
                                                   "refused");
                    lowlevel::checkpoint();
                    scope.cancel();
                    lowlevel::checkpoint();
                });
            });
            check(entered == 1 && scope.cancelled_caught(), "by one task");
        });
    }

    TEST_CASE("G1: a group entered twice names the task that enters it again") {
        run_test([] {
            task_group group;
            group.run([&] {
                group.start_soon(task_options{.name = "child"}, [&] {
                    refuses<std::logic_error>(
                        {"a task group cannot be entered more than once", "task 'child'"},
                        [&] { group.run([] { check(false, "not entered"); }); });
                    lowlevel::checkpoint();
                });
            });
            in_task("late", [&] {
                refuses<std::logic_error>({"more than once", "task 'late'"},
                                          [&] { group.run([] {}); });
            });
        });
    }

    TEST_CASE("G2: a group before and after its time refuses tasks, and names the task that asks") {
        run_test([] {
            task_group group;
            in_task("early", [&] {
                each_spawn(group, [](auto const& spawn) {
                    refuses<std::logic_error>({"this task group is not active", "task 'early'"},
                                              spawn);
                });
            });
            group.run([] {});
            in_task("late", [&] {
                each_spawn(group, [](auto const& spawn) {
                    refuses<std::logic_error>({"this task group is not active", "task 'late'"},
                                              spawn);
                });
            });
            std::thread([&] {
                refuses<std::logic_error>({"is not active", "a thread outside of any task"},
                                          [&] { group.start_soon([] {}); });
            }).join();
        });
    }

    TEST_CASE("S6: a child that never says started() is named, in the caller's error only") {
        run_test([] {
            with_task_group([](task_group& group) {
                refuses<std::logic_error>(
                    {"task 'mute' ended without calling task_status::started()"},
                    [&] { group.start(task_options{.name = "mute"}, [](task_status<>&) {}); });
                refuses<std::logic_error>({"task 'slow and mute' ended without"}, [&] {
                    group.start<int>(task_options{.name = "slow and mute"},
                                     [](task_status<int>&) { lowlevel::checkpoint(); });
                });
                check(!group.cancel_scope().cancel_called(), "the group is unharmed");
                check(group.start<int>([](task_status<int>& ready) { ready.started(1); }) == 1,
                      "it works");
            });
        });
    }

    TEST_CASE("S6: many children that never say started(), at the same time: each caller hears of "
              "its own") {
        run_test({.times = 20}, [] {
            with_task_group([](task_group& destination) {
                with_task_group([&](task_group& callers) {
                    for (int caller = 0; caller < 8; ++caller)
                        callers.start_soon([&, caller] {
                            std::string const name = "mute " + std::to_string(caller);
                            refuses<std::logic_error>({"task '" + name + "' ended without"}, [&] {
                                destination.start(task_options{.name = name}, [&](task_status<>&) {
                                    if (caller % 2 == 0) lowlevel::checkpoint();
                                });
                            });
                        });
                });
            });
        });
    }

    TEST_CASE("S8: started() twice names the task that says it again") {
        run_test([] {
            with_task_group([](task_group& group) {
                group.start(task_options{.name = "eager"}, [](task_status<>& ready) {
                    ready.started();
                    refuses<std::logic_error>({"started() was called twice", "task 'eager'"},
                                              [&] { ready.started(); });
                });
                int const first =
                    group.start<int>(task_options{.name = "eager"}, [](task_status<int>& ready) {
                        ready.started(1);
                        refuses<std::logic_error>({"started() was called twice", "task 'eager'"},
                                                  [&] { ready.started(2); });
                        in_task("deputy", [&] {
                            refuses<std::logic_error>({"called twice", "task 'deputy'"},
                                                      [&] { ready.started(3); });
                        });
                    });
                check(first == 1, "the first counts");
            });
        });
    }

    TEST_CASE("S8: started() that is called by two tasks at once is refused once") {
        run_test({.times = 50}, [] {
            with_task_group([](task_group& group) {
                group.start([](task_status<>& ready) {
                    std::vector<int> refused(2);
                    with_task_group([&](task_group& both) {
                        for (int& mine : refused)
                            both.start_soon([&] {
                                try {
                                    ready.started();
                                } catch (std::logic_error const&) {
                                    mine = 1;
                                }
                            });
                    });
                    check(refused[0] + refused[1] == 1, "one of them");
                });
            });
        });
    }

    TEST_CASE("NX3: handles of tasks that failed or were cancelled name the task") {
        run_test([] {
            std::optional<task_handle<int>> failed, cut;
            try {
                with_task_group([&](task_group& group) {
                    cut = group.create_task(task_options{.name = "cut short"}, []() -> int {
                        sleep_forever();
                        return 0;
                    });
                    wait_all_tasks_blocked();
                    cut->cancel();
                    failed = group.create_task(task_options{.name = "broken"}, []() -> int {
                        throw std::range_error("out of range");
                    });
                });
            } catch (exception_group const& group) {
                check(group.contains<std::range_error>(), "through the group as well");
            }
            for (int time = 0; time < 2; ++time) {
                refuses<task_failed>({"task 'broken' failed"}, [&] { failed->wait(); });
                refuses<task_cancelled>({"task 'cut short' was cancelled"}, [&] { cut->wait(); });
            }
        });
    }
}
