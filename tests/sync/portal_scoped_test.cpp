#include <weft/sync/portal.hpp>

#include "each_runtime.hpp"
#include "portal_in_thread.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <vector>

// Objects that live in a portal's task.

TEST_SUITE_BEGIN("sync.portal_scoped");

TEST_CASE("B9: wrap_scoped() makes and destroys in one task") {
    struct made_here {
        std::uint64_t made = weft::get_current_task().id;
        std::uint64_t& destroyed;
        explicit made_here(std::uint64_t& report) : destroyed(report) {}
        made_here(made_here const&) = delete;
        ~made_here() { destroyed = weft::get_current_task().id; }
    };
    with_portal_in_thread([](weft::blocking_portal& portal) {
        std::uint64_t destroyed = 0;
        std::uint64_t made = 0;
        {
            auto handle = portal.wrap_scoped([&] { return made_here(destroyed); });
            made = handle->made;
            CHECK(destroyed == 0);
        }
        CHECK(made != 0);
        CHECK(destroyed == made);
        CHECK(throws<std::domain_error>(
            [&] { portal.wrap_scoped([]() -> int { throw std::domain_error("no"); }); }));
    });
}

TEST_CASE("B9: stop(true) leaves the object to its handle, which destroys it once and in its task") {
    struct counted {
        std::vector<std::uint64_t>& destroyed_in;
        std::uint64_t made_in = weft::get_current_task().id;
        explicit counted(std::vector<std::uint64_t>& report) : destroyed_in(report) {}
        counted(counted const&) = delete;
        ~counted() { destroyed_in.push_back(weft::get_current_task().id); }
    };
    with_portal_in_thread([](weft::blocking_portal& portal) {
        std::vector<std::uint64_t> destroyed_in;
        std::uint64_t made_in = 0;
        {
            auto const handle = portal.wrap_scoped([&] { return counted(destroyed_in); });
            made_in = handle->made_in;
            auto const endless = portal.start_task_soon([] { weft::sleep_forever(); });
            portal.call([] { weft::wait_all_tasks_blocked(); });
            portal.stop(true);
            CHECK(throws<weft::future_cancelled>([&] { endless.get(); }));
            CHECK(destroyed_in.empty());
        }
        CHECK(destroyed_in == std::vector{made_in});
    });
}

TEST_CASE("B9: wrap_scoped() that is cancelled while its object is made leaves no task behind") {
    weft::test::run_test({.seeds = {}}, [] {
        std::atomic<int> there = 0;
        struct counted {
            std::atomic<int>& of;
            explicit counted(std::atomic<int>& in) : of(in) { ++of; }
            ~counted() { --of; }
        };
        weft::cancel_scope scope;
        weft::event begun;
        weft::event go; // outlives the portal: its task may come to wait only after go.set()
        {
            auto const portal = weft::from_thread::start_blocking_portal({.workers = 1});
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    scope.run([&] {
                        portal->wrap_scoped([&] {
                            begun.set();
                            go.wait();
                            return counted(there);
                        });
                    });
                });
                begun.wait();
                scope.cancel();
            });
            go.set();
        } // waits for what the portal's tasks keep
        CHECK(scope.cancelled_caught());
        CHECK(there == 0);
    });
}

TEST_CASE("B9: a task of another run that leaves a cancelled scope waits for its scoped handles' objects") {
    struct counted {
        std::atomic<int>& of;
        explicit counted(std::atomic<int>& in) : of(in) { ++of; }
        ~counted() { --of; }
    };
    on_each_runtime([] {
        auto const portal = weft::from_thread::start_blocking_portal({.workers = 1});
        for (bool const throws_through : {false, true}) {
            std::atomic<int> there = 0;
            weft::cancel_scope scope;
            scope.run([&] {
                auto const handle = portal->wrap_scoped([&] { return counted(there); });
                weft::test::check(there == 1, "made");
                scope.cancel();
                if (throws_through) weft::lowlevel::checkpoint();
            });
            weft::test::check(there == 0, "destroyed before the handle's owner goes on");
            weft::test::check(scope.cancelled_caught() == throws_through, "the cancellation is not eaten");
        }
    });
}

TEST_SUITE_END();
