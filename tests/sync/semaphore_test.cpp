#include <weft/sync/semaphore.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

TEST_SUITE_BEGIN("sync.semaphore");

TEST_CASE("SM1: it starts neither above its maximum nor below zero") {
    CHECK(throws<std::invalid_argument>([] { weft::semaphore(std::size_t(-1)); }));
    CHECK(throws<std::invalid_argument>([] { weft::semaphore(3, {.max_value = 2}); }));
    CHECK(weft::semaphore(2, {.max_value = 2}).max_value() == 2);
    CHECK_FALSE(weft::semaphore(2).max_value().has_value());
    constexpr std::size_t most = std::size_t(-1) / 2; // what can be counted
    CHECK(throws<std::invalid_argument>([] { weft::semaphore(most + 1, {.max_value = most + 1}); }));
    CHECK(throws<std::invalid_argument>([] { weft::semaphore(most + 3, {.max_value = most + 3}); }));
    weft::semaphore full(most, {.max_value = std::size_t(-1)});
    CHECK(full.value() == most);
    CHECK(throws<std::logic_error>([&] { full.release(); }));
    CHECK(full.value() == most);
}

TEST_CASE("SM2: acquire() takes a permit, and the nowait calls only one that is there") {
    on_each_runtime([] {
        weft::semaphore permits(2);
        permits.acquire();
        CHECK(permits.try_acquire());
        CHECK_FALSE(permits.try_acquire());
        CHECK(throws<weft::would_block>([&] { permits.acquire_nowait(); }));
        permits.release();
        permits.acquire_nowait();
        CHECK(permits.value() == 0);
    });
}

TEST_CASE("SM3: a permit goes to who waits longest, and is never free in between") {
    on_each_runtime([] {
        weft::semaphore permits(0);
        std::vector<int> order;
        weft::semaphore turn(1);
        weft::with_task_group([&](weft::task_group& group) {
            for (int number = 0; number < 4; ++number) {
                group.start_soon([&, number] {
                    permits.acquire();
                    order.push_back(number);
                    turn.release();
                });
                weft::wait_all_tasks_blocked();
            }
            CHECK(permits.statistics().tasks_waiting == 4);
            for (int number = 0; number < 4; ++number) {
                turn.acquire();
                permits.release();
                CHECK(permits.value() == 0);
                CHECK_FALSE(permits.try_acquire());
            }
        });
        CHECK(order == std::vector{0, 1, 2, 3});
    });
}

TEST_CASE("SM3: it cannot be released past its maximum") {
    weft::semaphore permits(1, {.max_value = 2});
    permits.release();
    CHECK(throws<std::logic_error>([&] { permits.release(); }));
    CHECK(permits.value() == 2);
    weft::semaphore none(0, {.max_value = 0});
    CHECK(throws<std::logic_error>([&] { none.release(); }));
}

TEST_CASE("SM4: release() against cancel(): no permit is lost or made") {
    often_on_each_runtime(100, [] {
        auto const permits = std::make_unique<weft::semaphore>(0);
        weft::cancel_scope scope;
        std::atomic<int> taken = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int waiter = 0; waiter < 3; ++waiter)
                group.start_soon([&, waiter] {
                    auto const take = [&] {
                        permits->acquire();
                        ++taken;
                    };
                    if (waiter == 1)
                        scope.run(take);
                    else
                        take();
                });
            group.start_soon([&] { scope.cancel(); });
            for (int count = 0; count < 3; ++count)
                group.start_soon([&] { permits->release(); });
        });
        CHECK(taken + int(permits->value()) == 3);
        CHECK(taken >= 2);
        CHECK(permits->statistics().tasks_waiting == 0);
    });
}

TEST_CASE("SM4: in a cancelled scope acquire() takes nothing") {
    on_each_runtime([] {
        for (bool fast : {false, true}) {
            weft::semaphore permits(1, {.fast_acquire = fast});
            weft::cancel_scope scope;
            scope.run([&] {
                scope.cancel();
                permits.acquire();
            });
            CHECK(scope.cancelled_caught());
            CHECK(permits.value() == 1);
        }
    });
}

TEST_CASE("SM6: no more inside than there are permits, with releases from OS threads") {
    on_each_runtime([] {
        weft::semaphore permits(2, {.max_value = 4});
        std::atomic<int> inside = 0;
        std::atomic<bool> crowded = false;
        std::thread outsider([&] {
            permits.release();
            std::this_thread::yield();
            permits.release();
        });
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 8; ++task)
                group.start_soon([&] {
                    for (int step = 0; step < 50; ++step) {
                        permits.acquire();
                        if (++inside > 4) crowded = true;
                        if (step % 4 == 0) weft::lowlevel::checkpoint();
                        --inside;
                        permits.release();
                    }
                });
        });
        outsider.join();
        CHECK_FALSE(crowded);
        CHECK(permits.value() == 4);
    });
}

TEST_CASE("M15: whoever got the permit may destroy the semaphore") {
    often_on_each_runtime(200, [] {
        auto permits = std::make_unique<weft::semaphore>(0);
        weft::semaphore& named = *permits;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { named.release(); });
            named.acquire();
            permits.reset();
        });
    });
}

TEST_CASE("SM5: value, maximum and waiters can be asked for") {
    on_each_runtime([] {
        weft::semaphore permits(2, {.max_value = 3});
        CHECK(permits.max_value() == 3);
        CHECK_FALSE(weft::semaphore(1).max_value().has_value());
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 5; ++task)
                group.start_soon([&] { permits.acquire(); });
            weft::wait_all_tasks_blocked();
            CHECK(permits.value() == 0);
            CHECK(permits.statistics().tasks_waiting == 3);
            for (int task = 0; task < 3; ++task)
                permits.release();
        });
        CHECK(permits.statistics().tasks_waiting == 0);
    });
}

TEST_SUITE_END();
