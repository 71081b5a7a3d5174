#include "support/child_process.hpp"
#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/context_var.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <set>

#include <fcntl.h>
#include <unistd.h>

using namespace weft;
using namespace weft::test;

namespace {

template <class Call> std::string failure_of(Call&& call) {
    try {
        call();
    } catch (failure const& problem) {
        return problem.what();
    }
    return {};
}

bool has(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }

child_program const ends_well("ends_well", [] { std::puts("here"); });
child_program const aborts("aborts", [] { std::abort(); });

} // namespace

TEST_SUITE("runtime.fixture") {
    TEST_CASE("the fixture runs its body with 1, 2 and 4 workers and with several seeds") {
        unsigned runs = 0;
        run_test([&] { ++runs; });
        CHECK(runs == 7);
    }

    TEST_CASE("a failed check names the run and how to repeat it") {
        std::string const text = failure_of([] { run_test([] { check(false, "pigs fly"); }); });
        CHECK(has(text, "pigs fly"));
        CHECK(has(text, "fixture_test.cpp:"));
        CHECK(has(text, "WEFT_TEST_SEED=0"));
    }

    TEST_CASE("explore names the first seed that fails") {
        std::set<std::uint64_t> const bad{3};
        std::uint64_t seed = 0;
        std::string const text =
            failure_of([&] { explore(10, [&] { check(!bad.contains(seed++), "a good seed"); }); });
        CHECK(has(text, "WEFT_TEST_SEED=3"));
    }

    TEST_CASE("a descriptor that is left behind is found") {
        int left = -1;
        std::string const text =
            failure_of([&] { run_sim(0, [&] { left = ::open("/dev/null", O_RDONLY); }); });
        ::close(left);
        CHECK(has(text, "file descriptors"));
    }

    TEST_CASE("cancel_at_every_suspension_point tries each suspension, then none") {
        std::multiset<unsigned> steps_done;
        unsigned const points = cancel_at_every_suspension_point([&](attempt& at) {
            unsigned steps = 0;
            bool const finished = at.run([&] {
                for (int step = 0; step < 3; ++step) {
                    lowlevel::checkpoint();
                    ++steps;
                }
            });
            check(finished == !at.cancelled(), "cut short if cancelled");
            check(finished == (steps == 3), "finished if all was done");
            if (at.cancelled()) check(steps == at.point() - 1, "cut short where it was cancelled");
            steps_done.insert(steps);
        });
        CHECK(points == 3);
        CHECK(steps_done == std::multiset<unsigned>{0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3});
    }

    TEST_CASE("cancel_at_every_suspension_point sees the waits of every task") {
        unsigned const points = cancel_at_every_suspension_point([](attempt& at) {
            at.run([] {
                gate opened;
                with_task_group([&](task_group& group) {
                    group.start_soon([&] { opened.wait(); });
                    lowlevel::checkpoint();
                    opened.open();
                });
            });
        });
        CHECK(points >= 3);
    }

    TEST_CASE("a child process tells how it ended and what it said") {
        child_end const well = run_child("ends_well");
        CHECK(well.exit_code == 0);
        CHECK(well.output == "here\n");
        CHECK(run_child("aborts").signal == SIGABRT);
        CHECK(run_child("no such program").exit_code == 127);
    }

    TEST_CASE("TI8: what escapes a task in the background fails the test, whoever waits for it") {
        for (bool watched : {false, true}) {
            std::string const text = failure_of([watched] {
                run_test([watched] {
                    with_task_group([watched](task_group& group) {
                        auto const handle = group.create_task({.name = "background"}, [] {
                            throw std::runtime_error("out of the dark");
                        });
                        if (!watched) return;
                        try {
                            handle.wait();
                        } catch (task_failed const&) {
                        }
                    });
                });
            });
            CHECK(has(text, "out of the dark"));
            CHECK(has(text, "background"));
        }
    }

    TEST_CASE("TI8: the run of a test is one; what a body made for the run is the same for all its "
              "tasks") {
        run_test([] {
            run_var<int> counter("counter", 0);
            with_task_group([&](task_group& group) { group.start_soon([&] { counter.set(1); }); });
            check(counter.get() == 1, "one run");
        });
    }
}
