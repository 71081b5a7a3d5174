#include "support/child_process.hpp"
#include "support/gate.hpp"
#include "support/run_test.hpp"

#include "runtime/src/fiber_slab.hpp"
#include "runtime/src/sim_schedule.hpp"
#include "runtime/src/timer_heap.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

bool contains(std::string const& text, std::string const& part) {
    return text.find(part) != std::string::npos;
}

// What run() throws; empty if it throws no deadlock_error.
std::string deadlock_of(run_options options, std::function<void()> const& body) {
    options.backend = "sim";
    try {
        run(options, body);
    } catch (deadlock_error const& report) {
        return report.what();
    }
    return {};
}

// The order in which tasks with names from 'a' on pass their checkpoints, sleeps and hand-overs.
std::string trace(std::uint64_t seed, unsigned workers) {
    std::string order;
    run({.backend = "sim", .workers = workers, .seed = seed}, [&] {
        with_task_group([&](task_group& group) {
            for (char name = 'a'; name < 'g'; ++name)
                group.start_soon([&order, name] {
                    for (int step = 0; step < 4; ++step) {
                        order += name;
                        if (step % 2 == 0)
                            lowlevel::checkpoint();
                        else
                            sleep(1ms);
                    }
                    with_task_group([&](task_group& inner) {
                        inner.start_soon([&order, name] { order += char(name - 'a' + 'A'); });
                    });
                });
        });
    });
    return order;
}

child_program const uncancellable_deadlock("uncancellable_deadlock", [] {
    run({.backend = "sim"}, [] {
        detail::parking wait("a call that nothing ends", detail::cancellable::no);
        wait.suspend();
    });
});

} // namespace

TEST_SUITE("runtime.sim") {

    TEST_CASE("M12: tasks that wait for one another are a deadlock: run() throws the tree of tasks") {
        for (std::uint64_t const seed : {0, 1, 2}) {
            gate never;
            std::string const report = deadlock_of({.seed = seed}, [&] {
                with_task_group([&](task_group& group) {
                    group.start_soon(task_options{.name = "first"}, [&] { never.wait(); });
                    group.start_soon(task_options{.name = "second"}, [&] { sleep_forever(); });
                });
            });
            CHECK(contains(report, "deadlock"));
            CHECK(contains(report, "  - first (")); // under the task that hosts the group
            CHECK(contains(report, "waiting in gate::wait"));
            CHECK(contains(report, "  - second ("));
            CHECK(contains(report, "waiting in sleep"));
            CHECK(contains(report, "waiting in task_group::run"));
            CHECK(get_running_tasks().empty());
        }
    }

    TEST_CASE("M12: the tasks of a deadlock are cancelled and clean up") {
        int cleaned_up = 0;
        bool went_on = false;
        std::string const report = deadlock_of({}, [&] {
            with_task_group([&](task_group& group) {
                for (int i = 0; i < 3; ++i)
                    group.start_soon([&] {
                        struct cleanup {
                            int& count;
                            ~cleanup() {
                                sleep(1s); // the clock still goes
                                ++count;
                            }
                        } const at_the_end{cleaned_up};
                        sleep_forever();
                    });
            });
            went_on = true;
        });
        CHECK(!report.empty());
        CHECK(cleaned_up == 3);
        CHECK(!went_on);
    }

    TEST_CASE("M12: shields do not keep a deadlock alive") {
        bool cut_short = false;
        std::string const report = deadlock_of({}, [&] {
            try {
                shielded([] { shielded([] { sleep_forever(); }); });
            } catch (cancelled const&) {
                cut_short = true;
                throw;
            }
        });
        CHECK(contains(report, "waiting in sleep"));
        CHECK(cut_short);
    }

    TEST_CASE("M12: a deadlock that cannot be cancelled ends the process, with the tree") {
        child_end const end = run_child("uncancellable_deadlock");
        CHECK(end.signal == SIGABRT);
        CHECK(end.says("waiting in a call that nothing ends"));
    }

    TEST_CASE("M12: what the first task made of the deadlock does not hide it") {
        CHECK(!deadlock_of({}, [] { move_on_after(duration::max(), [] { sleep_forever(); }); }).empty());
        CHECK(!deadlock_of({}, [] {
                   try {
                       sleep_forever();
                   } catch (...) {
                       throw std::runtime_error("another error");
                   }
               }).empty());
    }

    TEST_CASE("M12: a run that waits for a thread of the program is no deadlock") {
        gate opened;
        std::thread setter([&] {
            auto const waits = [] {
                auto const tasks = get_running_tasks();
                return !tasks.empty() && tasks.front().waiting_on == "gate::wait";
            };
            for (int seen = 0; seen < 100;) // long after the worker found nothing to do
                seen += waits() ? 1 : 0;
            opened.open();
        });
        CHECK_NOTHROW(run({.backend = "sim"}, [&] { opened.wait(); }));
        setter.join();
    }

    TEST_CASE("M12: a timer that may still come is no deadlock") {
        CHECK_NOTHROW(run({.backend = "sim"}, [] { move_on_after(24h, [] { sleep_forever(); }); }));
    }

    TEST_CASE("M12: the same seed and workers give the same run") {
        for (unsigned const workers : {1u, 2u, 4u})
            for (std::uint64_t seed = 0; seed < 20; ++seed) {
                std::string const first = trace(seed, workers);
                CHECK(trace(seed, workers) == first);
            }
    }

    TEST_CASE("M12: seeds and workers give different runs") {
        for (unsigned const workers : {1u, 2u, 4u}) {
            std::set<std::string> orders;
            for (std::uint64_t seed = 0; seed < 50; ++seed)
                orders.insert(trace(seed, workers));
            CHECK(orders.size() > 40);
        }
    }

    TEST_CASE("M11: with seed 0 and one worker everything is first in, first out, equal deadlines too") {
        std::string order;
        run({.backend = "sim", .seed = 0}, [&] {
            with_task_group([&](task_group& group) {
                for (char name = 'a'; name < 'k'; ++name)
                    group.start_soon([&order, name] {
                        sleep(5ms);
                        order += name;
                    });
            });
        });
        CHECK(order == "abcdefghij");
    }

    TEST_CASE("E6: chance decides between equal deadlines, never between different ones") {
        std::set<std::string> firsts;
        for (std::uint64_t seed = 1; seed <= 40; ++seed) {
            std::string order;
            auto const expire = [&](bool equal) { // each timer alone: its task is the only ready one
                detail::sim_schedule chance(seed, 1);
                detail::timer_heap timers(0);
                timers.draw_order_from(chance);
                std::vector<detail::fiber*> fibers;
                for (int number = 0; number < 6; ++number) {
                    fibers.push_back(detail::fiber_slabs::take_one());
                    timers.insert(*fibers.back(), time_point(equal ? 1s : 1s * (number + 1)));
                }
                std::string left; // the slots tell who is at the top
                while (timers.size() > 0)
                    for (std::size_t number = 0; number < fibers.size(); ++number)
                        if (fibers[number]->timer_slot == 1) {
                            left += char('a' + number);
                            timers.remove(*fibers[number]);
                            break;
                        }
                for (detail::fiber* each : fibers)
                    detail::fiber_slabs::give_one(*each);
                return left;
            };
            CHECK(expire(false) == "abcdef");
            firsts.insert(expire(true));
        }
        CHECK(firsts.size() > 30);
    }
}
