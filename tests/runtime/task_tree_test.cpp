#include "support/run_test.hpp"

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <optional>
#include <sstream>
#include <string>
#include <thread>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

// Where the frames of calls that have returned were.
[[gnu::noinline]] void overwrite_stack() {
    char volatile room[16 * 1024];
    for (char volatile& each : room)
        each = 0;
}

// What others do on a busy machine does not count.
std::chrono::nanoseconds cpu_time_of_thread() {
    timespec used{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

} // namespace

TEST_SUITE("runtime.task_tree") {
    TEST_CASE("TI2: runs with tasks of the same numbers are told apart in the tree") {
        std::atomic<int> ready{0};
        std::atomic<bool> leave{false};
        std::thread runs[2];
        for (int number = 0; number < 2; ++number)
            runs[number] = std::thread([&, number] {
                run({.workers = 1}, [&] {
                    with_task_group([&](task_group& group) {
                        group.start_soon({.name = "parent " + std::to_string(number)}, [&] {
                            with_task_group([&](task_group& inner) {
                                inner.start_soon({.name = "child " + std::to_string(number)},
                                                 [] { sleep_forever(); });
                                wait_all_tasks_blocked();
                                ++ready;
                                while (!leave)
                                    weft::sleep(100us);
                                inner.cancel();
                            });
                        });
                    });
                });
            });
        while (ready < 2)
            std::this_thread::yield();
        std::ostringstream out;
        dump_tasks(out);
        leave = true;
        for (std::thread& each : runs)
            each.join();
        std::string const text = out.str();
        for (std::string const number : {"0", "1"}) {
            std::size_t const parent = text.find("parent " + number);
            std::size_t const child = text.find("child " + number);
            REQUIRE(parent != std::string::npos);
            REQUIRE(child != std::string::npos);
            CHECK(text.find("parent " + number, parent + 1) == std::string::npos);
            CHECK(text.find("child " + number, child + 1) == std::string::npos);
            std::size_t const other = text.find("parent " + std::string(number == "0" ? "1" : "0"));
            CHECK((parent < child) != (parent < other && other < child));
        }
    }

    TEST_CASE("TI7: whoever has a reference to a run's first task can read its name after the run") {
        std::optional<detail::task_look> kept; // as a look at all tasks keeps it for a moment
        task_info during;
        auto const body = [&] {
            kept.emplace(*detail::current_fiber());
            during = get_current_task();
        };
        run({.workers = 1}, body);
        overwrite_stack();
        task_info const after = kept->info();
        CHECK(after.name == during.name);
        CHECK(after.id == during.id);
        CHECK(after.state == task_state::finished);
        overwrite_stack();
        kept.reset(); // the last one: the block goes back
        CHECK(during.name.find("DOCTEST_ANON_FUNC") != std::string::npos); // a lambda in here
    }

    TEST_CASE("TI2: listing and dumping 20,000 tasks takes no more than seconds") {
        run({.workers = 2}, [] {
            with_task_group([](task_group& group) {
                for (int task = 0; task < 20'000; ++task)
                    group.start_soon([] { sleep_forever(); });
                auto const start = cpu_time_of_thread();
                CHECK(get_running_tasks().size() == 20'001);
                std::ostringstream text;
                dump_tasks(text);
                CHECK(cpu_time_of_thread() - start < 10s * slowdown);
                group.cancel();
            });
        });
    }

    TEST_CASE("TI2: dump_tasks writes the tree: names, states, what each waits for, where it was spawned") {
        run_test([] {
            with_task_group([](task_group& group) {
                group.start_soon({.name = "the parent"}, [] {
                    with_task_group([](task_group& inner) {
                        inner.start_soon({.name = "the child"}, [] { sleep_forever(); });
                    });
                });
                wait_all_tasks_blocked();
                std::ostringstream out;
                dump_tasks(out);
                std::string const text = out.str();
                std::size_t const parent = text.find("the parent");
                std::size_t const child = text.find("the child");
                CHECK(parent != std::string::npos);
                CHECK(child != std::string::npos);
                CHECK(parent < child);
                CHECK(text.find("sleep", child) != std::string::npos);
                CHECK(text.find("waiting", child) != std::string::npos);
                CHECK(text.find("spawned", child) != std::string::npos);
                auto const indent = [&](std::size_t place) {
                    return place - text.rfind('\n', place);
                };
                CHECK(indent(child) > indent(parent));
                group.cancel();
            });
        });
    }

#if defined(__x86_64__)
    TEST_CASE(
        "TI2: dump_tasks shows the stacks of tasks that wait, down to where they were begun") {
        run_test([] {
            with_task_group([](task_group& group) {
                group.start_soon({.name = "has a stack"}, [] { sleep_forever(); });
                wait_all_tasks_blocked();
                std::ostringstream out;
                dump_tasks(out);
                std::string const text = out.str();
                std::size_t const at = text.find("has a stack");
                std::size_t const top = text.find("#0 ", at);
                CHECK(top != std::string::npos);
                CHECK(text.find("weft::sleep", top) != std::string::npos);
                CHECK(text.find(program_invocation_short_name + std::string("+0x"), top) !=
                      std::string::npos); // the body itself
                CHECK(text.find("run_on_new_stack", top) != std::string::npos);
                CHECK(text.find("#0 ") < at); // who asks has a stack, too
                group.cancel();
            });
        });
    }

    TEST_CASE("TI2: a stack that many tasks have in common is written once") {
        run_test([] {
            with_task_group([](task_group& group) {
                for (int task = 0; task < 100; ++task)
                    group.start_soon([] { sleep_forever(); });
                wait_all_tasks_blocked();
                std::ostringstream out;
                dump_tasks(out);
                std::string const text = out.str();
                std::size_t same = 0;
                for (std::size_t at = 0;
                     (at = text.find("the same stack as task", at)) != std::string::npos; ++at)
                    ++same;
                // The first that a new stack runs has another beginning than those that follow on it.
                check(same >= 90, "few different ones: " + std::to_string(same));
                group.cancel();
            });
        });
    }
#endif
}
