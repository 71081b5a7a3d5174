#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/blocking_region.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

TEST_SUITE("runtime.inspect") {
    TEST_CASE("TI1: task_info is a value that outlives its task; ids are unique") {
        run_test([] {
            std::optional<task_info> kept;
            std::set<std::uint64_t> ids{get_current_task().id};
            with_task_group([&](task_group& group) {
                group.start_soon({.name = "short-lived"}, [&] { kept = get_current_task(); });
            });
            CHECK(kept->name == "short-lived");
            CHECK(kept->state == task_state::running);
            CHECK(*kept == *kept);
            CHECK_FALSE(*kept == get_current_task());
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 100; ++task)
                    group.start_soon([] { sleep_forever(); });
                wait_all_tasks_blocked();
                for (task_info const& each : get_running_tasks())
                    ids.insert(each.id);
                group.cancel();
            });
            CHECK(ids.size() == 101);
        });
    }

    TEST_CASE("TI2: get_current_task needs a task; get_running_tasks lists the unfinished ones") {
        CHECK_THROWS_AS(get_current_task(), no_event_loop_error);
        CHECK(get_running_tasks().empty());
        run_test([] {
            CHECK(get_running_tasks().size() == 1);
            gate go;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 10; ++task)
                    group.start_soon({.name = "waits"}, [&] { go.wait(); });
                auto const tasks = get_running_tasks();
                CHECK(tasks.size() == 11);
                CHECK(std::count_if(tasks.begin(), tasks.end(),
                                    [](task_info const& task) { return task.name == "waits"; }) == 10);
                go.open();
            });
            CHECK(get_running_tasks().size() == 1);
        });
    }

    TEST_CASE("TI2: a thread sees the tasks of every run, a task those of its own") {
        std::atomic<int> inside{0};
        std::atomic<bool> leave{false};
        std::atomic<bool> own_only{true};
        std::thread runs[2];
        for (std::thread& each : runs)
            each = std::thread([&] {
                run([&] {
                    if (get_running_tasks().size() != 1) own_only = false;
                    ++inside;
                    while (!leave)
                        weft::sleep(100us);
                });
            });
        while (inside < 2)
            std::this_thread::yield();
        CHECK(get_running_tasks().size() == 2);
        leave = true;
        for (std::thread& each : runs)
            each.join();
        CHECK(own_only);
    }

    TEST_CASE("TI3: a finished task has no pending cancellation") {
        run_test([] {
            std::optional<task_handle<void>> handle;
            with_task_group([&](task_group& group) {
                handle = group.create_task([] { sleep_forever(); });
                wait_all_tasks_blocked();
                CHECK_FALSE(handle->info().pending_cancellation);
                group.cancel();
            });
            CHECK_FALSE(handle->info().pending_cancellation);
            CHECK(handle->info().state == task_state::finished);
        });
    }

    TEST_CASE("TI3, C23: a deadline around that has passed is a pending cancellation, unless a shield keeps it out") {
        auto const is_pending = [] { return get_current_task().pending_cancellation; };
        run_test({.seeds = {}}, [&] { // the clock goes on although nothing waits
            cancel_scope scope({.deadline = current_time() + 1ms});
            scope.run([&] {
                while (current_time() < scope.deadline()) {}
                CHECK(is_pending());
                shielded([&] { CHECK_FALSE(is_pending()); });
                CHECK(is_pending());
            });
        });
        run_test({.workers = {}}, [&] { // whatever time it is elsewhere
            move_on_after(1ns, [&] { CHECK_FALSE(is_pending()); });
        });
    }

    TEST_CASE("TI4: the first task is named after its function") {
        std::string name;
        struct named {
            std::string& name;
            void operator()() const { name = get_current_task().name; }
        };
        run(named{name});
        CHECK(name.find("named") != std::string::npos);
        CHECK(run(static_cast<task_info (*)()>(get_current_task)).name.find("get_current_task") !=
              std::string::npos);
    }

    TEST_CASE("TI1: a waiting task's info says in which call") {
        run_test([] {
            with_task_group([](task_group& group) {
                auto const sleeps = group.create_task([] { sleep_forever(); });
                auto const waits = group.create_task([&] { sleeps.wait(); });
                wait_all_tasks_blocked();
                CHECK(sleeps.info().state == task_state::waiting);
                CHECK(sleeps.info().waiting_on.find("sleep") != std::string::npos);
                CHECK(waits.info().waiting_on.find("task_handle::wait") != std::string::npos);
                group.cancel();
            });
        });
    }

    TEST_CASE("TI5: wait_all_tasks_blocked returns when every other task waits") {
        CHECK_THROWS_AS(wait_all_tasks_blocked(), no_event_loop_error);
        run_test({.times = 20}, [] {
            wait_all_tasks_blocked();
            std::atomic<int> steps{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 5; ++task)
                    group.start_soon([&] {
                        for (int time = 0; time < 20; ++time) {
                            ++steps;
                            lowlevel::checkpoint(); // not blocked
                        }
                        sleep_forever();
                    });
                wait_all_tasks_blocked();
                CHECK(steps == 100);
                group.cancel();
            });
        });
    }

    TEST_CASE("TI5: a chain of wake-ups is waited for to its end") {
        run_test({.times = 20}, [] {
            constexpr int length = 50;
            gate gates[length];
            std::atomic<int> passed{0};
            with_task_group([&](task_group& group) {
                for (int link = 0; link + 1 < length; ++link)
                    group.start_soon([&, link] {
                        gates[link].wait();
                        ++passed;
                        gates[link + 1].open();
                    });
                wait_all_tasks_blocked();
                CHECK(passed == 0);
                gates[0].open();
                wait_all_tasks_blocked();
                CHECK(passed == length - 1);
            });
        });
    }

    TEST_CASE("TI5: a task that was just cancelled is not blocked") {
        run_test({.times = 20}, [] {
            std::atomic<bool> cleaned_up{false};
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    scope.run([&] {
                        try {
                            sleep_forever();
                        } catch (cancelled const&) {
                            for (int time = 0; time < 10; ++time)
                                lowlevel::cancel_shielded_checkpoint();
                            cleaned_up = true;
                            throw;
                        }
                    });
                });
                wait_all_tasks_blocked();
                scope.cancel();
                wait_all_tasks_blocked();
                CHECK(cleaned_up);
            });
        });
    }

    TEST_CASE("TI5: tasks that wait for a timer are blocked: under sim it returns before the clock jumps") {
        explore(5, [] {
            time_point const start = current_time();
            with_task_group([&](task_group& group) {
                group.start_soon([] { weft::sleep(1h); });
                wait_all_tasks_blocked();
                CHECK(current_time() == start);
            });
            CHECK(current_time() == start + 1h);
        });
        run_test({.seeds = {}}, [] {
            with_task_group([&](task_group& group) {
                group.start_soon([] { weft::sleep(1h); });
                wait_all_tasks_blocked();
                group.cancel();
            });
        });
    }

    TEST_CASE("TI5: several tasks may wait for quiet at once, and count as blocked") {
        run_test({.times = 20}, [] {
            std::atomic<int> woken{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&] {
                        wait_all_tasks_blocked();
                        ++woken;
                    });
                wait_all_tasks_blocked();
            });
            CHECK(woken == 10);
        });
    }

    TEST_CASE("TI6: an expired timer is not quiet") {
        run_test({.seeds = {}, .times = 20}, [] {
            std::atomic<int> woken{0};
            with_task_group([&](task_group& group) {
                time_point const soon = current_time() + 200us;
                for (int task = 0; task < 4; ++task)
                    group.start_soon([&] {
                        sleep_until(soon);
                        ++woken;
                    });
                while (current_time() < soon) {}
                wait_all_tasks_blocked();
                CHECK(woken == 4);
            });
        });
    }

    TEST_CASE("TI5: wait_all_tasks_blocked is a cancellation point, and a cancelled one leaves nothing") {
        cancel_at_every_suspension_point([](attempt& at) {
            with_task_group([&](task_group& group) {
                group.start_soon([] {
                    for (int time = 0; time < 5; ++time)
                        lowlevel::checkpoint();
                });
                bool const finished = at.run([] { wait_all_tasks_blocked(); });
                check(finished == !at.cancelled() || finished, "finished or cut short");
            });
            wait_all_tasks_blocked();
        });
    }

    TEST_CASE("TI7: get_running_tasks is safe while tasks come and go") {
        run_test({.workers = {2, 4}, .seeds = {}, .times = 3}, [] {
            std::atomic<bool> stop{false};
            std::thread looker([&] {
                while (!stop) {
                    std::ostringstream text;
                    dump_tasks(text);
                    for (task_info const& each : get_running_tasks())
                        if (each.id == 0 || each.state == task_state::finished) std::abort();
                }
            });
            for (int round = 0; round < 50; ++round)
                with_task_group([](task_group& group) {
                    for (int task = 0; task < 50; ++task)
                        group.start_soon({.name = "comes and goes"}, [] {
                            lowlevel::checkpoint();
                            cancel_scope scope;
                            scope.run([&] { lowlevel::checkpoint(); });
                        });
                });
            stop = true;
            looker.join();
        });
    }

    TEST_CASE("TI7: a task that a thread is starting is seen with its number, or not yet") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            std::atomic<bool> stop{false};
            with_task_group([&](task_group& group) {
                blocking_region region;
                std::thread looker([&] {
                    while (!stop) {
                        for (task_info const& each : get_running_tasks())
                            if (each.id == 0 || each.id == each.parent_id) std::abort();
                        std::ostringstream text;
                        dump_tasks(text);
                    }
                });
                std::vector<std::thread> starters;
                for (int number = 0; number < 3; ++number)
                    starters.emplace_back([&] {
                        for (int task = 0; task < 2'000; ++task)
                            group.start_soon([] {});
                    });
                for (std::thread& each : starters)
                    each.join();
                stop = true;
                looker.join();
            });
        });
    }

    TEST_CASE("TI7, G2: a task that its group refuses is never seen") {
        run_test({.workers = {1, 2}, .seeds = {}}, [] {
            std::atomic<bool> stop{false};
            std::atomic<bool> seen{false};
            std::thread looker([&] {
                while (!stop)
                    for (task_info const& each : get_running_tasks())
                        if (each.name == "refused") seen = true;
            });
            task_group group;
            move_on_after(10h, [&] { group.run([](task_group&) {}); }); // a scope around it that is gone
            for (int attempt = 0; attempt < 2'000; ++attempt)
                check_throws<std::logic_error>([&] { group.start_soon({.name = "refused"}, [] {}); },
                                               "the group is closed");
            stop = true;
            looker.join();
            check(!seen, "a task that was never started");
        });
    }

    TEST_CASE("TI1: a waiting task's info says for how long") {
        run_test([] {
            with_task_group([&](task_group& group) {
                auto const waits = group.create_task([] { sleep_forever(); });
                wait_all_tasks_blocked();
                time_point const before = current_time();
                duration const first = waits.info().waited;
                sleep(20ms);
                duration const second = waits.info().waited;
                duration const passed = current_time() - before;
                check(second - first >= 18ms, "it grows with the time");
                check(second - first <= passed + 3ms, "and no faster");
                check(get_current_task().waited == duration::zero(), "who runs does not wait");
                group.cancel();
            });
        });
    }

    TEST_CASE("TI1: hours are hours: under sim the wait is as long as the virtual time") {
        explore(3, [] {
            with_task_group([](task_group& group) {
                auto const waits = group.create_task([] { sleep_forever(); });
                sleep(100h);
                duration const waited = waits.info().waited;
                check(waited > 100h - 5ms && waited < 100h + 5ms, "a hundred hours");
                std::ostringstream out;
                dump_tasks(out);
                check(out.str().find(" for 3599") != std::string::npos ||
                          out.str().find(" for 360000 s") != std::string::npos,
                      "in words");
                group.cancel();
            });
        });
    }

    namespace {

    /// Somebody outside who looks at all tasks again and again.
    class looker {
    public:
        looker()
            : thread_([this] {
                  while (!stop_) {
                      std::ostringstream text;
                      dump_tasks(text);
                      ++looks_;
                  }
              }) {
            while (looks_ == 0)
                std::this_thread::yield();
        }
        ~looker() {
            stop_ = true;
            thread_.join();
        }

    private:
        std::atomic<bool> stop_{false};
        std::atomic<int> looks_{0};
        std::thread thread_;
    };

    } // namespace

    TEST_CASE("TI7: no wake-up is lost or doubled while stacks are looked at") {
        run_test({.seeds = {}, .times = 3}, [] {
            looker const one, two;
            for (int round = 0; round < 30; ++round) {
                gate gates[8];
                std::atomic<int> passed{0}, timed_out{0}, cut{0};
                cancel_scope scope;
                with_task_group([&](task_group& group) {
                    for (int link = 0; link < 7; ++link)
                        group.start_soon([&, link] {
                            gates[link].wait();
                            ++passed;
                            gates[link + 1].open();
                        });
                    for (int task = 0; task < 4; ++task) {
                        group.start_soon(
                            [&] { move_on_after(100us, [] { sleep_forever(); }) || ++timed_out; });
                        group.start_soon([&] {
                            sleep(50us);
                            ++timed_out;
                        });
                    }
                    group.start_soon([&] {
                        scope.run([&] {
                            with_task_group([&](task_group& inner) {
                                for (int task = 0; task < 4; ++task)
                                    inner.start_soon([&] {
                                        try {
                                            sleep_forever();
                                        } catch (cancelled const&) {
                                            ++cut;
                                            throw;
                                        }
                                    });
                            });
                        });
                    });
                    lowlevel::checkpoint();
                    gates[0].open();
                    gates[7].wait();
                    scope.cancel();
                });
                CHECK(passed == 7);
                CHECK(timed_out == 8);
                CHECK(cut <= 4); // those that had begun
            }
        });
    }

    TEST_CASE("TI6: a task that is woken while its stack is looked at is not quiet") {
        run_test({.seeds = {}, .times = 3}, [] {
            looker const outside;
            for (int round = 0; round < 100; ++round) {
                gate go;
                std::atomic<int> passed{0};
                with_task_group([&](task_group& group) {
                    for (int task = 0; task < 3; ++task)
                        group.start_soon([&] {
                            go.wait();
                            ++passed;
                        });
                    wait_all_tasks_blocked();
                    CHECK(passed == 0);
                    go.open();
                    wait_all_tasks_blocked();
                    CHECK(passed == 3);
                });
            }
        });
    }

    TEST_CASE("TI6: a timer that the monitor has taken out is not quiet") {
        run_test({.seeds = {}, .times = 3}, [] {
            for (int round = 0; round < 5; ++round) {
                std::atomic<int> woken{0};
                with_task_group([&](task_group& group) {
                    time_point const soon =
                        current_time() + 11ms; // when the monitor thinks us neglected
                    for (int task = 0; task < 50; ++task)
                        group.start_soon([&] {
                            sleep_until(soon);
                            ++woken;
                        });
                    lowlevel::checkpoint();
                    while (current_time() < soon + 50us * round) {
                    }
                    wait_all_tasks_blocked();
                    CHECK(woken == 50);
                });
            }
        });
    }

    namespace {

    /// Bodies are lambdas within a lambda that is a template: the demangler of libstdc++ 12 does not know these.
    template <class F> void all_of(task_group& group, F f) {
        [&]<std::size_t... Index>(std::index_sequence<Index...>) {
            group.start_soon([f] { f(std::integral_constant<std::size_t, (Index + ...)>()); });
        }
        (std::make_index_sequence<1>());
    }

    } // namespace

    TEST_CASE(
        "TI4: a task whose type has no readable name is called after the function around it") {
        run_test([] {
            std::string name;
            with_task_group([&](task_group& group) {
                all_of(group, [&](auto) { name = get_current_task().name; });
            });
            check(name.find("all_of") != std::string::npos && !name.starts_with("Z"), name);
            check(name.find("anonymous") != std::string::npos, name);
        });
    }
}
