#include <weft/sync/portal.hpp>

#include "each_runtime.hpp"
#include "portal_in_thread.hpp"
#include "support/old_cancellation.hpp"

#include <weft/runtime/blocking_region.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/from_thread.hpp>
#include <weft/sync/to_thread.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <time.h>

TEST_SUITE_BEGIN("sync.portal");

TEST_CASE("B1: a portal is opened in a task, closes with the body, and waits for its tasks") {
    CHECK_THROWS_WITH_AS(weft::with_blocking_portal([](weft::blocking_portal&) {}),
                         doctest::Contains("with_blocking_portal needs a task"), weft::no_event_loop_error);
    on_each_runtime([] {
        std::atomic<bool> ended = false;
        weft::future<void> late = [&] {
            weft::event begun;
            std::optional<weft::future<void>> of_task;
            weft::with_blocking_portal([&](weft::blocking_portal& portal) {
                weft::to_thread::run_sync([&] {
                    of_task = portal.start_task_soon([&] {
                        begun.set();
                        weft::wait_all_tasks_blocked(); // the body's task waits for this one by now
                        ended = true;
                    });
                });
                begun.wait();
            });
            return *of_task;
        }();
        weft::test::check(ended && late.done() && !late.cancelled(), "waited for, not cancelled");
    });
}

TEST_CASE("B1: the body's failure cancels the portal's tasks, and leaves with the group") {
    on_each_runtime([] {
        std::optional<weft::future<void>> endless;
        CHECK(throws<weft::exception_group>([&] {
            weft::with_blocking_portal([&](weft::blocking_portal& portal) {
                weft::to_thread::run_sync(
                    [&] { endless = portal.start_task_soon([] { weft::sleep_forever(); }); });
                throw std::domain_error("no");
            });
        }));
        CHECK(endless->cancelled());
    });
}

TEST_CASE("B8: sleep_until_stopped() returns when any thread stops the portal, or is cancelled") {
    on_each_runtime([] {
        weft::with_blocking_portal([&](weft::blocking_portal& portal) {
            std::atomic<int> woken = 0;
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                for (int task = 0; task < 3; ++task)
                    group.start_soon([&] {
                        portal.sleep_until_stopped();
                        ++woken;
                    });
                group.start_soon([&] { scope.run([&] { portal.sleep_until_stopped(); }); });
                weft::wait_all_tasks_blocked();
                scope.cancel();
                weft::wait_all_tasks_blocked();
                weft::test::check(woken == 0 && scope.cancelled_caught(), "not stopped yet");
                std::thread([&] { portal.stop(); }).join();
            });
            weft::test::check(woken == 3, "each of them");
            portal.sleep_until_stopped(); // it is
        });
    });
}

TEST_CASE("B2, B11: a cancellation from elsewhere ends the task that lets it escape, and nothing else") {
    for (unsigned const workers : {1u, 2u}) {
        auto const portal = weft::from_thread::start_blocking_portal({.workers = workers});
        std::exception_ptr const foreign = portal->call(weft::test::old_cancellation);
        auto const escape = [foreign] { std::rethrow_exception(foreign); };
        weft::event gate;
        auto const other = portal->start_task_soon([&] {
            gate.wait();
            return 4;
        });
        CHECK(throws<weft::future_cancelled>([&] { portal->call(escape); }));
        CHECK(throws<weft::future_cancelled>(
            [&] { portal->start_task([&](weft::task_status<>&) { escape(); }); }));
        auto const started = portal->start_task([&](weft::task_status<>& status) {
            status.started();
            escape();
        });
        CHECK(throws<weft::future_cancelled>([&] { started.get(); }));
        CHECK(throws<weft::future_cancelled>([&] { portal->wrap_scoped([&] { return escape(), 1; }); }));
        portal->call([&] { gate.set(); });
        CHECK(other.get() == 4);
        CHECK(portal->call([] {
            weft::lowlevel::checkpoint();
            return 5;
        }) == 5);
    }
}

namespace {

// Goes while an exception is in flight.
struct opens_a_portal {
    std::exception_ptr foreign;
    bool& refused;
    bool& goes_on;
    ~opens_a_portal() {
        weft::with_blocking_portal([this](weft::blocking_portal& portal) {
            weft::to_thread::run_sync([&] {
                refused = throws<weft::future_cancelled>(
                    [&] { portal.call([this] { std::rethrow_exception(foreign); }); });
                goes_on = !throws<weft::future_cancelled>([&] { portal.call(weft::lowlevel::checkpoint); });
            });
        });
    }
};

} // namespace

TEST_CASE("B2, B11: it ends nothing else where the scope around is cancelled, but a destructor does not see that") {
    on_each_runtime([] {
        bool refused = false;
        bool goes_on = false;
        std::exception_ptr const foreign = weft::test::old_cancellation();
        weft::cancel_scope scope;
        CHECK(throws<int>([&] {
            scope.run([&] {
                scope.cancel();
                opens_a_portal const at_the_end{foreign, refused, goes_on};
                throw 7;
            });
        }));
        CHECK(refused);
        CHECK(goes_on);
    });
}

TEST_CASE("B5: a cancellation around the portal that cut a task short goes on through it") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        scope.run([&] {
            weft::with_blocking_portal([&](weft::blocking_portal& portal) {
                weft::to_thread::run_sync(
                    [&] { portal.start_task_soon([] { weft::sleep_forever(); }); });
                scope.cancel();
            });
        });
        CHECK(scope.cancelled_caught());
    });
}

TEST_CASE("B14: a result that cannot be moved fails its future") {
    struct fragile {
        int moves_left; // then one throws
        explicit fragile(int moves) : moves_left(moves) {}
        fragile(fragile&& other) : moves_left(other.moves_left - 1) {
            if (moves_left < 0) throw std::domain_error("no further");
        }
    };
    auto const portal = weft::from_thread::start_blocking_portal({.workers = 1});
    int moves = 0;
    for (bool arrived = false; !arrived; ++moves) {
        auto const outcome = portal->start_task_soon([moves] { return fragile(moves); });
        REQUIRE(outcome.wait_for(std::chrono::seconds(10) * weft::test::slowdown));
        try {
            outcome.get();
            arrived = true;
        } catch (std::domain_error const&) { // at the next move, then
        }
    }
    CHECK(moves > 1);
    portal->call([] {}); // it goes on
}

TEST_CASE("B16: while a thread waits for a call it costs no CPU time, nor do the workers that sleep") {
    timespec before{}, after{};
    for (unsigned const workers : {1u, 2u}) {
        auto const portal = weft::from_thread::start_blocking_portal({.workers = workers});
        portal->call([] { weft::wait_all_tasks_blocked(); });
        ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
        portal->call([] { weft::sleep(std::chrono::milliseconds(300)); }); // all are asleep: it wakes one
        ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
        auto const spent = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
        CHECK(spent < 100);
    }
}

TEST_CASE("B2: what a task throws goes to who asked, and to nobody else") {
    with_portal_in_thread([](weft::blocking_portal& portal) {
        CHECK(throws<std::domain_error>([&] { portal.call([] { throw std::domain_error("no"); }); }));
        CHECK(portal.call([](int number) { return number + 1; }, 1) == 2);
        CHECK(throws<int>([&] { portal.call([] { throw 7; }); }));
        CHECK(throws<int>([&] { portal.start_task_soon([] { throw 7; }).get(); }));
        CHECK(throws<int>([&] { portal.start_task([](weft::task_status<>&) { throw 7; }); }));
        CHECK(throws<int>([&] { portal.wrap_scoped([]() -> int { throw 7; }); }));
        CHECK(portal.call([] { return 2; }) == 2);
    });
}

TEST_CASE("B3: a task of the run is refused, and everybody once it is stopped") {
    on_each_runtime([] {
        weft::with_blocking_portal([](weft::blocking_portal& portal) {
            auto const is_refused = [&portal] {
                CHECK(throws<std::logic_error>([&] { portal.call([] {}); }));
                CHECK(throws<std::logic_error>([&] { portal.start_task_soon([] {}); }));
                CHECK(throws<std::logic_error>([&] {
                    portal.start_task([](weft::task_status<>& status) { status.started(); });
                }));
                CHECK(throws<std::logic_error>([&] { portal.wrap_scoped([] { return 1; }); }));
            };
            is_refused();
            weft::to_thread::run_sync([&] {
                portal.call(is_refused); // by a task of its own as well
                weft::from_thread::run(is_refused);
                weft::from_thread::run_sync(is_refused);
                CHECK(portal.call([] { return 2; }) == 2); // and has taken no harm
            });
            portal.stop();
            portal.stop();
            portal.sleep_until_stopped();
            weft::to_thread::run_sync([&] {
                using over = weft::run_finished_error;
                CHECK(throws<over>([&] { portal.call([] {}); }));
                CHECK(throws<over>([&] { portal.start_task_soon([] {}); }));
                CHECK(throws<over>(
                    [&] { portal.start_task([](weft::task_status<>& status) { status.started(); }); }));
                CHECK(throws<over>([&] { portal.wrap_scoped([] { return 1; }); }));
            });
        });
    });
}

TEST_CASE("B4, B14: cancelling the future cancels the task, at any moment") {
    with_portal_in_thread([](weft::blocking_portal& portal) {
        for (int round = 0; round < 30; ++round) {
            std::atomic<int> begun = 0;
            std::atomic<int> ended = 0;
            auto const task = portal.start_task_soon([&] {
                ++begun;
                struct count {
                    std::atomic<int>& of;
                    ~count() { ++of; }
                } const guard{ended};
                weft::sleep_forever();
            });
            if (round % 2 == 0)
                while (begun == 0)
                    std::this_thread::yield();
            CHECK(task.cancel());
            CHECK(task.cancelled());
            CHECK(throws<weft::future_cancelled>([&] { task.get(); }));
            portal.call([] { weft::wait_all_tasks_blocked(); });
            CHECK(begun == ended);
        }
    });
}

TEST_CASE("B4: cancelling the future cancels the task also once the portal was stopped") {
    for (bool const has_begun : {false, true}) {
        std::atomic<int> begun = 0;
        std::atomic<int> ended = 0;
        with_portal_in_thread([&](weft::blocking_portal& portal) {
            auto const task = portal.start_task_soon([&] {
                ++begun;
                struct count {
                    std::atomic<int>& of;
                    ~count() { ++of; }
                } const guard{ended};
                weft::sleep_forever();
            });
            if (has_begun) portal.call([] { weft::wait_all_tasks_blocked(); });
            portal.stop();
            CHECK_FALSE(task.done());
            CHECK(task.cancel());
            CHECK(task.cancelled());
            CHECK(throws<weft::future_cancelled>([&] { task.get(); }));
        }); // waits for it
        CHECK(begun == ended);
        if (has_begun) CHECK(begun > 0);
    }
}

TEST_CASE("B5, B7: stop(true) cancels what runs, and its futures say so") {
    std::vector<weft::future<void>> futures;
    on_each_runtime([&] {
        weft::with_blocking_portal([&](weft::blocking_portal& portal) {
            weft::to_thread::run_sync([&] {
                futures.push_back(portal.start_task_soon([] { weft::sleep_forever(); }));
                portal.stop(true);
            });
        });
    });
    for (weft::future<void> const& future : futures)
        CHECK(throws<weft::future_cancelled>([&] { future.get(); }));
}

TEST_CASE("B6: start_task() gives what was started, or why it was not") {
    with_portal_in_thread([](weft::blocking_portal& portal) {
        auto [end, port] = portal.start_task<int>([](weft::task_status<int>& status) {
            status.started(7);
            weft::lowlevel::checkpoint();
            return std::string("end");
        });
        CHECK(port == 7);
        CHECK(end.get() == "end");
        CHECK(throws<std::domain_error>([&] {
            portal.start_task([](weft::task_status<>&) { throw std::domain_error("no"); });
        }));
        CHECK(throws<std::logic_error>([&] { portal.start_task([](weft::task_status<>&) {}); }));
        auto const failing = portal.start_task([](weft::task_status<>& status) {
            status.started();
            throw std::domain_error("later");
        });
        CHECK(throws<std::domain_error>([&] { failing.get(); }));
        portal.call([] {});
    });
}

TEST_CASE("T15: under sim the clock goes no faster than the real one while a task waits for another run") {
    using namespace std::chrono_literals;
    for (std::uint64_t const seed : {0, 1, 2, 3})
        weft::run({.backend = "sim", .seed = seed}, [] {
            auto portal = weft::from_thread::start_blocking_portal({.workers = 1});
            auto const takes_its_time = [](auto const& call) {
                auto const start = std::chrono::steady_clock::now();
                weft::test::check(!weft::move_on_after(30ms, call), "cut short");
                weft::test::check(std::chrono::steady_clock::now() - start >= 29ms, "not at once");
            };
            takes_its_time([&] { portal->call([] { weft::sleep_forever(); }); });
            takes_its_time([&] { portal->wrap_scoped([] { return weft::sleep_forever(), 1; }); });
            takes_its_time([&] { portal->start_task([](weft::task_status<>&) { weft::sleep_forever(); }); });
            weft::fail_after(20s, [&] { portal->call([] { weft::lowlevel::checkpoint(); }); });
            portal.stop(true);
        });
}

TEST_CASE("B3: a blocking_region that keeps its worker waits for no call into its own run") {
    auto const is_refused = [](weft::blocking_portal& portal) {
        try {
            portal.call([] {});
        } catch (std::logic_error const& refused) {
            return std::string(refused.what()).find("blocking_region") != std::string::npos;
        }
        return false;
    };
    auto const in_regions = [&] {
        auto const elsewhere = weft::from_thread::start_blocking_portal({.workers = 1});
        weft::with_blocking_portal([&](weft::blocking_portal& portal) {
            {
                weft::blocking_region const region;
                weft::test::check(is_refused(portal), "in the region");
                weft::run({.workers = 1}, [&] {
                    weft::test::check(is_refused(portal), "by a task of a run in the region");
                    weft::no_migrate const stay;
                    weft::blocking_region const inner;
                    weft::test::check(is_refused(portal), "in a region of a run in the region");
                });
                weft::test::check(is_refused(portal), "still in the region");
                weft::test::check(elsewhere->call([] { return 2; }) == 2, "into another run");
            }
            weft::test::check(weft::to_thread::run_sync([&] { return portal.call([] { return 3; }); }) == 3,
                              "it has taken no harm");
        });
    };
    weft::test::run_test({.workers = {}}, in_regions);
    weft::test::run_test({.seeds = {}}, [&] {
        weft::no_migrate const stay;
        in_regions();
    });
    weft::test::run_test({.seeds = {}}, [] { // where the worker goes on elsewhere
        weft::with_blocking_portal([](weft::blocking_portal& portal) {
            weft::blocking_region const region;
            weft::test::check(portal.call([] { return 4; }) == 4, "answered");
        });
    });
}

TEST_CASE("F12, B15: calls against stop(): each is done or refused") {
    on_each_runtime([] {
        for (int round = 0; round < 5; ++round) {
            std::atomic<int> done = 0;
            std::atomic<int> answered = 0;
            weft::with_blocking_portal([&](weft::blocking_portal& portal) {
                weft::with_task_group([&](weft::task_group& group) {
                    for (int caller = 0; caller < 2; ++caller)
                        group.start_soon([&] {
                            weft::to_thread::run_sync([&] {
                                for (int call = 0; call < 10; ++call)
                                    try {
                                        portal.call([&] { ++done; });
                                        ++answered;
                                    } catch (weft::run_finished_error const&) {
                                        return;
                                    }
                            });
                        });
                    group.start_soon([&] {
                        weft::lowlevel::checkpoint();
                        portal.stop();
                    });
                });
            });
            CHECK(done == answered);
        }
    });
}

TEST_CASE("TI4: a portal's task is named after the function that was passed in") {
    struct named_callable {
        std::string operator()() const { return weft::get_current_task().name; }
    };
    struct named_start {
        void operator()(weft::task_status<std::string>& status) const {
            status.started(weft::get_current_task().name);
        }
    };
    auto const is_after = [](std::string const& name, char const* function) {
        bool const is_wrapped = name.find("portal_body") != std::string::npos;
        weft::test::check(name.find(function) != std::string::npos && !is_wrapped, name.c_str());
    };
    with_portal_in_thread([&](weft::blocking_portal& portal) {
        is_after(portal.call(named_callable()), "named_callable");
        is_after(portal.start_task<std::string>(named_start()).second, "named_start");
        auto const current = static_cast<weft::task_info (*)()>(weft::get_current_task);
        is_after(portal.call(current).name, "get_current_task");
        auto const given = portal.start_task_soon({.name = "given"}, named_callable());
        weft::test::check(given.get() == "given", "its own name");
    });
}

TEST_SUITE_END();
