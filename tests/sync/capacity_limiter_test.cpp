#include <weft/sync/capacity_limiter.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/event.hpp>

#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

constexpr double endless = std::numeric_limits<double>::infinity();

struct lent_token {
    explicit lent_token(weft::capacity_limiter& of) : limiter(of) { limiter.acquire(); }
    ~lent_token() { limiter.release(); }
    lent_token(lent_token const&) = delete;
    lent_token& operator=(lent_token const&) = delete;
    weft::capacity_limiter& limiter;
};

} // namespace

#include <thread>

TEST_SUITE_BEGIN("sync.capacity_limiter");

TEST_CASE("CL1: a total is a whole number from 0 on, or infinity") {
    CHECK(weft::capacity_limiter(0).total_tokens() == 0);
    CHECK(std::isinf(weft::capacity_limiter(endless).total_tokens()));
    CHECK(throws<std::invalid_argument>([] { weft::capacity_limiter(-1); }));
    CHECK(throws<std::invalid_argument>([] { weft::capacity_limiter(1.5); }));
    CHECK(throws<std::invalid_argument>([] { weft::capacity_limiter(std::nan("")); }));
    weft::capacity_limiter limiter(1);
    CHECK(throws<std::invalid_argument>([&] { limiter.set_total_tokens(-endless); }));
    CHECK(limiter.total_tokens() == 1);
}

TEST_CASE("CL2: a borrower holds one token") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(2);
        limiter.acquire();
        CHECK(throws<std::logic_error>([&] { limiter.acquire(); }));
        CHECK(throws<std::logic_error>([&] { limiter.try_acquire(); }));
        CHECK(limiter.borrowed_tokens() == 1);
        limiter.release();
        CHECK(throws<std::logic_error>([&] { limiter.release(); }));
        CHECK(limiter.borrowed_tokens() == 0);
    });
}

TEST_CASE("CL3, CL4: tokens go to waiters in order, and are reserved at once") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(1);
        std::vector<int> order;
        weft::with_task_group([&](weft::task_group& group) {
            limiter.acquire();
            for (int number = 0; number < 4; ++number) {
                group.start_soon([&, number] {
                    lent_token const token(limiter);
                    order.push_back(number);
                });
                weft::wait_all_tasks_blocked();
            }
            CHECK(limiter.statistics().tasks_waiting == 4);
            limiter.release();
            int newcomer = 0;
            // Until the last waiter is done, nobody finds a token.
            if (limiter.try_acquire_on_behalf_of(&newcomer)) {
                CHECK(order.size() == 4);
                limiter.release_on_behalf_of(&newcomer);
            }
        });
        CHECK(order == std::vector{0, 1, 2, 3});
        CHECK(limiter.borrowed_tokens() == 0);
    });
}

TEST_CASE("CL5: lowered and raised, the total serves as many waiters as there are tokens") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(2);
        weft::event finish;
        std::atomic<int> inside = 0;
        int borrowers[2];
        limiter.acquire_on_behalf_of(&borrowers[0]);
        limiter.acquire_on_behalf_of(&borrowers[1]);
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 4; ++task)
                group.start_soon([&] {
                    lent_token const token(limiter);
                    ++inside;
                    finish.wait();
                });
            weft::wait_all_tasks_blocked();
            limiter.set_total_tokens(1);
            CHECK(limiter.available_tokens() == -1);
            limiter.set_total_tokens(3);
            weft::wait_all_tasks_blocked();
            CHECK(inside == 1);
            CHECK(limiter.available_tokens() == 0);
            limiter.set_total_tokens(2);
            limiter.release_on_behalf_of(&borrowers[0]);
            weft::wait_all_tasks_blocked();
            CHECK(inside == 1);
            limiter.set_total_tokens(endless);
            weft::wait_all_tasks_blocked();
            CHECK(inside == 4);
            finish.set();
        });
        limiter.release_on_behalf_of(&borrowers[1]);
        CHECK(limiter.borrowed_tokens() == 0);
    });
}

TEST_CASE("CL6: a cancelled waiter leaves, and its token goes to the next") {
    often_on_each_runtime(60, [] {
        auto const limiter = std::make_unique<weft::capacity_limiter>(1);
        weft::cancel_scope scope;
        std::atomic<int> inside = 0;
        std::atomic<int> served = 0;
        auto const work = [&] {
            lent_token const token(*limiter);
            if (++inside > 1) throw std::runtime_error("more tokens than there are");
            weft::lowlevel::cancel_shielded_checkpoint();
            ++served;
            --inside;
        };
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon(work);
            group.start_soon([&] { scope.run(work); });
            group.start_soon(work);
            group.start_soon([&] { scope.cancel(); });
        });
        CHECK(served >= 2);
        CHECK(limiter->borrowed_tokens() == 0);
        CHECK(limiter->statistics().tasks_waiting == 0);
    });
}

TEST_CASE("CL7: one borrower waiting twice: the second grant is refused, nobody is lost") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(0);
        int borrower = 0;
        std::atomic<int> granted = 0;
        std::atomic<int> refused = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 2; ++task)
                group.start_soon([&] {
                    if (throws<std::logic_error>([&] { limiter.acquire_on_behalf_of(&borrower); }))
                        ++refused;
                    else
                        ++granted;
                });
            weft::wait_all_tasks_blocked();
            limiter.set_total_tokens(5);
        });
        CHECK(granted == 1);
        CHECK(refused == 1);
        CHECK(limiter.borrowed_tokens() == 1);
        limiter.release_on_behalf_of(&borrower);
    });
}

TEST_CASE("CL8: statistics add up") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(20);
        std::vector<int> borrowers(15);
        for (int& each : borrowers)
            limiter.acquire_on_behalf_of(&each);
        weft::capacity_limiter_statistics const seen = limiter.statistics();
        CHECK(seen.borrowed_tokens == 15);
        CHECK(seen.borrowers.size() == 15);
        CHECK(seen.total_tokens == 20);
        CHECK(limiter.available_tokens() == 5);
        for (int& each : borrowers)
            limiter.release_on_behalf_of(&each);
    });
}

TEST_CASE("CL11: in a cancelled scope nothing is borrowed") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(1);
        weft::cancel_scope scope;
        scope.run([&] {
            scope.cancel();
            limiter.acquire();
        });
        CHECK(scope.cancelled_caught());
        CHECK(limiter.borrowed_tokens() == 0);
    });
}

TEST_CASE("CL12: no more than the total at once, whatever happens") {
    on_each_runtime([] {
        weft::capacity_limiter limiter(3);
        std::atomic<int> inside = 0;
        std::atomic<bool> crowded = false;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 10; ++task)
                group.start_soon([&] {
                    for (int step = 0; step < 30; ++step) {
                        lent_token const token(limiter);
                        if (++inside > 3) crowded = true;
                        if (step % 2 == 0) weft::lowlevel::checkpoint();
                        --inside;
                    }
                });
        });
        CHECK_FALSE(crowded);
        CHECK(limiter.borrowed_tokens() == 0);
    });
}

TEST_CASE("the calls for the current task need one") {
    weft::capacity_limiter limiter(1);
    CHECK(throws<weft::no_event_loop_error>([&] { limiter.acquire(); }));
    CHECK(throws<weft::no_event_loop_error>([&] { limiter.try_acquire(); }));
    CHECK(throws<weft::no_event_loop_error>([&] { limiter.release(); }));
}

TEST_CASE("CL9, CL10: the total can be set from any thread; a task is its own borrower") {
    on_each_runtime([] {
        weft::capacity_limiter tokens(1);
        std::thread([&] { tokens.set_total_tokens(2); }).join();
        CHECK(tokens.total_tokens() == 2);
        tokens.acquire();
        CHECK(throws<std::logic_error>([&] { tokens.acquire(); }));
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                CHECK(throws<std::logic_error>([&] { tokens.release(); })); // another task's token
                tokens.acquire();
                CHECK(tokens.available_tokens() == 0);
                tokens.release();
            });
        });
        tokens.release();
        CHECK(tokens.borrowed_tokens() == 0);
    });
}

TEST_CASE("CL12: a token that an ended task has kept is not that of a later task") {
    weft::capacity_limiter tokens(2); // beyond the end of the run, too
    weft::run({.workers = 1}, [&] { tokens.acquire(); });
    auto const is_a_stranger = [&] {
        weft::test::check_throws<std::logic_error>([&] { tokens.release(); }, "it is not its own");
        tokens.acquire(); // it has none so far
        tokens.release();
    };
    on_each_runtime([&] {
        is_a_stranger();
        for (int task = 0; task < 10; ++task) // one after the other, in the same control blocks
            weft::with_task_group([&](weft::task_group& group) { group.start_soon(is_a_stranger); });
        weft::test::check(tokens.borrowed_tokens() == 1, "still out");
    });
}

TEST_SUITE_END();
