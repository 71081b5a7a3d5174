#include <weft/sync/portal.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/to_thread.hpp>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

// A run of its own for a portal: started by the thread that uses it, or shared by several.

TEST_SUITE_BEGIN("sync.portal_handle");

TEST_CASE("B10: a runtime of its own: its errors, its calls, its end") {
    CHECK(throws<std::invalid_argument>(
        [] { weft::from_thread::start_blocking_portal({.backend = "none"}); }));
    for (int round = 0; round < 10; ++round) {
        std::atomic<bool> finished = false;
        {
            auto const portal = weft::from_thread::start_blocking_portal({.workers = 2});
            portal->start_task_soon([&] {
                weft::lowlevel::checkpoint();
                finished = true;
            });
            CHECK(portal->call([] { return 4; }) == 4);
        }
        CHECK(finished);
        auto stopped = weft::from_thread::start_blocking_portal({.workers = 1});
        auto const endless = stopped->start_task_soon([] { weft::sleep_forever(); });
        stopped.stop(true);
        CHECK(throws<weft::run_finished_error>([&] { stopped->call([] {}); }));
        CHECK(throws<weft::future_cancelled>([&] { endless.get(); }));
    }
}

TEST_CASE("B10: a portal that an exception leaves cancels the tasks that are still at work") {
    std::optional<weft::future<void>> endless;
    CHECK(throws<int>([&] {
        auto const portal = weft::from_thread::start_blocking_portal({.workers = 1});
        endless = portal->start_task_soon([] { weft::sleep_forever(); });
        throw 7;
    }));
    CHECK(endless->cancelled());
}

namespace {

// Goes while an exception is in flight.
struct uses_a_portal {
    std::optional<weft::future<int>>& answer;
    ~uses_a_portal() {
        auto const portal = weft::from_thread::start_blocking_portal({.workers = 1});
        answer = portal->start_task_soon([&inside = *portal] {
            inside.sleep_until_stopped();
            weft::lowlevel::checkpoint();
            return 5;
        });
    }
};

} // namespace

TEST_CASE("B10: one that is made and left while another exception flies waits for its tasks") {
    std::optional<weft::future<int>> answer;
    CHECK(throws<int>([&] {
        uses_a_portal const at_the_end{answer};
        throw 7;
    }));
    CHECK(answer->get() == 5);
}

TEST_CASE("no thread outlives a portal of its own") {
    unsigned const before = weft::test::count_threads();
    for (int round = 0; round < 10; ++round)
        weft::from_thread::start_blocking_portal({.workers = 2})->call(
            [] { weft::to_thread::run_sync([] {}); });
    weft::test::wait_for_threads(before);
}

TEST_CASE("B12: threads share a portal; the last to leave stops it, the next starts another") {
    weft::from_thread::blocking_portal_provider provider(weft::run_options{.workers = 1});
    for (int round = 0; round < 5; ++round) {
        std::atomic<int> sum = 0;
        std::vector<std::thread> threads;
        for (int user = 0; user < 3; ++user)
            threads.emplace_back([&] {
                auto const portal = provider.acquire();
                sum += portal->call([] { return 1; });
            });
        for (std::thread& thread : threads)
            thread.join();
        CHECK(sum == 3);
    }
}

TEST_CASE("B12: the last to leave a shared portal waits for its tasks, also while an exception flies") {
    weft::from_thread::blocking_portal_provider provider(weft::run_options{.workers = 1});
    std::optional<weft::future<int>> answer;
    weft::event go;
    std::thread opener;
    try {
        auto const last = provider.acquire();
        weft::event begun;
        answer = provider.acquire()->start_task_soon([&] {
            begun.set();
            go.wait();
            return 7;
        });
        last->call([&] { begun.wait(); });
        opener = std::thread([&go, &portal = *last] { // which is there as long as its task
            while (!throws<weft::run_finished_error>([&] { portal.call([] {}); })) {
            }
            go.set();
        });
        throw std::runtime_error("of no concern to other users");
    } catch (std::runtime_error const&) {
        opener.join();
    }
    CHECK(answer->get() == 7);
}

TEST_CASE("B12: who comes while the last to leave waits for the tasks gets a new portal at once") {
    weft::from_thread::blocking_portal_provider provider(weft::run_options{.workers = 1});
    weft::event go;
    std::optional<weft::from_thread::blocking_portal_provider::lease> last(provider.acquire());
    weft::blocking_portal& old = **last;
    auto const answer = old.start_task_soon([&] {
        go.wait();
        return 7;
    });
    std::thread leaver([&] { last.reset(); });
    while (!throws<weft::run_finished_error>([&] { old.call([] {}); })) { // there as long as its task
    }
    auto const next = provider.acquire();
    CHECK(&*next != &old);
    CHECK(next->call([] { return 2; }) == 2);
    CHECK_FALSE(answer.done());
    go.set();
    leaver.join();
    CHECK(answer.get() == 7);
    CHECK(next->call([] { return 3; }) == 3); // the end of the old one is of no concern to it
    CHECK(&*provider.acquire() == &*next);
}

TEST_CASE("B3, B12: a shared portal is for OS threads; a task that asks for it is refused") {
    weft::from_thread::blocking_portal_provider provider(weft::run_options{.workers = 1});
    on_each_runtime([&provider] {
        CHECK(throws<std::logic_error>([&] { provider.acquire(); }));
        int const answer = weft::to_thread::run_sync([&provider] {
            auto const portal = provider.acquire();
            return portal->call([&provider] {
                return throws<std::logic_error>([&] { provider.acquire(); }) ? 1 : 0;
            });
        });
        CHECK(answer == 1);
    });
}

TEST_SUITE_END();
