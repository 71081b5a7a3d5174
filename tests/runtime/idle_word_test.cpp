#include <weft/runtime/detail/idle_word.hpp>

#include "support/run_test.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

using word = weft::detail::idle_word<>;
using weft::test::slowdown;

TEST_SUITE("runtime.idle_word") {
    TEST_CASE("TR80: nobody is woken while nobody sleeps or somebody searches") {
        word idle;
        CHECK(idle.notify() == word::nobody);
        CHECK_FALSE(idle.any_asleep());
        idle.announce_sleep(3, false);
        CHECK(idle.any_asleep());
        CHECK(idle.is_asleep(3));
        CHECK_FALSE(idle.is_asleep(2));
        CHECK(idle.try_start_searching(4));
        CHECK(idle.notify() == word::nobody);
        CHECK(idle.stop_searching());
        CHECK(idle.notify() == 3);
        CHECK_FALSE(idle.is_asleep(3));
        CHECK(idle.any_searching()); // the woken one counts
        CHECK(idle.notify() == word::nobody);
        CHECK_FALSE(idle.retract(3));
        CHECK(idle.stop_searching());
    }

    TEST_CASE("TR80: at most half of the workers search") {
        word idle;
        CHECK(idle.try_start_searching(4));
        CHECK(idle.try_start_searching(4));
        CHECK_FALSE(idle.try_start_searching(4));
        CHECK_FALSE(idle.stop_searching());
        CHECK(idle.stop_searching());
    }

    TEST_CASE("TI6: all_asleep only when all sleep and nobody searches; the last one may retract") {
        word idle;
        idle.announce_sleep(0, false);
        CHECK_FALSE(idle.all_asleep(2));
        CHECK_FALSE(idle.retract_as_last(0, 2));
        idle.announce_sleep(1, false);
        CHECK(idle.all_asleep(2));
        CHECK(idle.retract_as_last(1, 2));
        CHECK_FALSE(idle.all_asleep(2));
        CHECK(idle.is_asleep(0));
        CHECK_FALSE(idle.is_asleep(1));
        CHECK(idle.wake(0));
        CHECK_FALSE(idle.wake(0));
    }

    TEST_CASE("TR80: no wake-up is lost between threads that push and workers that sleep") {
        constexpr unsigned workers = 3;
        constexpr unsigned pushers = 2;
        int const each_pushes = 5'000 / slowdown;
        struct bed { // a token, and a place to wait for it
            std::mutex mutex;
            std::condition_variable changed;
            bool token = false;
        };
        word idle;
        std::vector<std::unique_ptr<bed>> beds;
        for (unsigned worker = 0; worker < workers; ++worker)
            beds.push_back(std::make_unique<bed>());
        std::atomic<int> items{0};
        std::atomic<int> consumed{0};
        std::atomic<bool> stop{false};
        auto const unpark = [&](unsigned worker) {
            std::lock_guard const guard(beds[worker]->mutex);
            beds[worker]->token = true;
            beds[worker]->changed.notify_one();
        };
        auto const take = [&] {
            int seen = items;
            while (seen > 0)
                if (items.compare_exchange_weak(seen, seen - 1)) return true;
            return false;
        };
        std::vector<std::thread> threads;
        for (unsigned worker = 0; worker < workers; ++worker)
            threads.emplace_back([&, worker] {
                bool searching = false;
                while (!stop) {
                    if (take()) {
                        if (searching && idle.stop_searching() && items > 0)
                            if (int const chosen = idle.notify(); chosen != word::nobody)
                                unpark(unsigned(chosen));
                        searching = false;
                        ++consumed;
                        continue;
                    }
                    idle.announce_sleep(worker, searching);
                    searching = true; // whoever takes the bit away counts us in
                    if (items > 0 || stop) {
                        idle.retract(worker);
                        continue;
                    }
                    bed& own = *beds[worker];
                    {
                        std::unique_lock lock(own.mutex);
                        own.changed.wait(lock, [&] { return own.token; });
                        own.token = false;
                    }
                    idle.retract(worker);
                }
            });
        std::vector<std::thread> sources;
        for (unsigned pusher = 0; pusher < pushers; ++pusher)
            sources.emplace_back([&] {
                for (int step = 0; step < each_pushes; ++step) {
                    ++items;
                    if (int const chosen = idle.notify(); chosen != word::nobody) unpark(unsigned(chosen));
                }
            });
        for (std::thread& thread : sources)
            thread.join();
        // A lost wake-up leaves an item with everybody asleep: then this never ends.
        while (consumed < int(pushers) * each_pushes)
            std::this_thread::yield();
        stop = true;
        for (unsigned worker = 0; worker < workers; ++worker) {
            idle.wake(worker);
            unpark(worker);
        }
        for (std::thread& thread : threads)
            thread.join();
        CHECK(consumed == int(pushers) * each_pushes);
    }
}
