#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/barrier.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/combinators.hpp>
#include <weft/sync/condition_variable.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/future.hpp>
#include <weft/sync/latch.hpp>
#include <weft/sync/mutex.hpp>
#include <weft/sync/semaphore.hpp>
#include <weft/sync/shared_mutex.hpp>
#include <weft/sync/to_thread.hpp>
#include <weft/sync/wait_group.hpp>

#include <array>
#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <vector>

// Each blocking call of this layer, cancelled at each suspension of its task and of all others: what it
// leaves behind is what its comment says. A case that is left with a waiter, a timer or a stack fails, too.

using namespace weft;
using weft::test::attempt;
using weft::test::cancel_at_every_suspension_point;
using weft::test::check;

namespace {

// The task that gives the call what it waits for, in a few steps; not cancelled with it.
template <class Steps> auto slowly(Steps steps) {
    return [steps]() mutable {
        lowlevel::checkpoint();
        lowlevel::checkpoint();
        steps();
    };
}

// So that the fixture has proved something: there was a suspension to be cancelled at.
void expect_points(unsigned points) { CHECK(points >= 2); }

} // namespace

TEST_SUITE_BEGIN("sync.cancellation");

TEST_CASE("M2, EV2: event.wait()") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        event gate;
        with_task_group([&](task_group& group) {
            group.start_soon(slowly([&] { gate.set(); }));
            bool const through = at.run([&] {
                gate.wait();
                check(gate.is_set(), "it returns when the event is set");
            });
            check(through || at.cancelled(), "only a cancellation cuts it short");
            check(gate.is_set() || gate.statistics().tasks_waiting == 0, "nobody waits any more");
        });
    }));
}

TEST_CASE("M2, LK4: mutex.lock()") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        mutex lock;
        bool inside = false;
        with_task_group([&](task_group& group) {
            lock.lock();
            group.start_soon([&] {
                at.run([&] {
                    std::lock_guard const guard(lock);
                    inside = true;
                    lowlevel::checkpoint();
                });
            });
            lowlevel::checkpoint();
            lowlevel::checkpoint();
            lock.unlock();
        });
        check(inside || at.cancelled(), "it came in, unless it was cancelled");
        check(!lock.locked() && lock.statistics().tasks_waiting == 0, "the mutex is free");
    }));
}

TEST_CASE("M2, CD2, CD4: condition_variable.wait()") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        mutex lock;
        condition_variable changed(lock);
        int second = 0;
        bool held = true;
        bool ready = false;
        with_task_group([&](task_group& group) {
            group.start_soon([&] { // who comes next takes what the cancelled one leaves
                std::lock_guard const guard(lock);
                changed.wait([&] { return ready; });
                ++second;
            });
            group.start_soon(slowly([&] {
                std::lock_guard const guard(lock);
                ready = true;
                changed.notify_all();
            }));
            at.run([&] {
                std::unique_lock guard(lock);
                struct look {
                    mutex& of;
                    bool& held;
                    ~look() { held = held && of.locked(); }
                } const at_the_end{lock, held};
                changed.wait([&] { return ready; });
            });
        });
        check(held, "the mutex is held on every way out");
        check(second == 1 && !lock.locked(), "the others are served, the mutex is free");
        check(changed.statistics().tasks_waiting == 0, "nobody waits any more");
    }));
}

TEST_CASE("M2, SM4: semaphore.acquire()") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        semaphore permits(0);
        bool got = false;
        with_task_group([&](task_group& group) {
            group.start_soon(slowly([&] { permits.release(); }));
            at.run([&] {
                permits.acquire();
                got = true;
                lowlevel::checkpoint();
            });
        });
        check(permits.value() == (got ? 0 : 1), "a permit is taken or it is there");
        check(got || at.cancelled(), "only a cancellation cuts it short");
    }));
}

TEST_CASE("M2, CL6: capacity_limiter.acquire()") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        capacity_limiter tokens(1);
        int first = 0, other = 0;
        bool got = false;
        with_task_group([&](task_group& group) {
            tokens.acquire_on_behalf_of(&first);
            group.start_soon(slowly([&] { tokens.release_on_behalf_of(&first); }));
            at.run([&] {
                tokens.acquire_on_behalf_of(&other);
                got = true;
                lowlevel::checkpoint();
            });
        });
        check(tokens.borrowed_tokens() == (got ? 1 : 0), "a token is borrowed or it is there");
        check(tokens.statistics().tasks_waiting == 0, "nobody waits any more");
    }));
}

TEST_CASE("M2: shared_mutex.lock() and lock_shared()") {
    for (bool const exclusive : {true, false})
        expect_points(cancel_at_every_suspension_point([exclusive](attempt& at) {
            shared_mutex lock;
            bool inside = false, reader = false;
            with_task_group([&](task_group& group) {
                lock.lock();
                group.start_soon([&] {
                    at.run([&] {
                        if (exclusive) {
                            std::lock_guard const guard(lock);
                            inside = true;
                        } else {
                            std::shared_lock const guard(lock);
                            inside = true;
                        }
                        lowlevel::checkpoint();
                    });
                });
                group.start_soon([&] { // waits behind it: comes in, whatever becomes of that one
                    std::shared_lock const guard(lock);
                    reader = true;
                });
                lowlevel::checkpoint();
                lowlevel::checkpoint();
                lock.unlock();
            });
            check(inside || at.cancelled(), "it came in, unless it was cancelled");
            check(reader && lock.try_lock(), "the others are served, the mutex is free");
            lock.unlock();
        }));
}

TEST_CASE("M2: latch.wait() and arrive_and_wait(): what was counted stays counted") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        latch gate(2);
        bool arrived = false;
        with_task_group([&](task_group& group) {
            group.start_soon(slowly([&] { gate.count_down(); }));
            at.run([&] {
                arrived = true;
                gate.arrive_and_wait();
                check(gate.try_wait(), "it returns when the latch is open");
            });
        });
        check(arrived, "it began");
        if (!gate.try_wait()) gate.count_down(); // cancelled before it was counted
        check(gate.try_wait(), "nothing was counted twice");
        gate.wait();
    }));
}

TEST_CASE("M2: barrier.wait(): the arrival stays, whatever becomes of the wait") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        barrier<> meeting(2);
        bool passed = false;
        with_task_group([&](task_group& group) {
            auto ticket = meeting.arrive();
            group.start_soon(slowly([&] { (void)meeting.arrive(); }));
            at.run([&] {
                meeting.wait(std::move(ticket));
                passed = true;
            });
        });
        check(passed || at.cancelled(), "only a cancellation cuts it short");
        (void)meeting.arrive(); // the next phase is whole
        meeting.arrive_and_wait();
    }));
}

TEST_CASE("M2: wait_group.wait()") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        wait_group pending;
        pending.add();
        with_task_group([&](task_group& group) {
            group.start_soon(slowly([&] { pending.done(); }));
            bool const through = at.run([&] { pending.wait(); });
            check(through || at.cancelled(), "only a cancellation cuts it short");
        });
        pending.wait();
    }));
}

TEST_CASE("M2, NX6: future.get() and wait_for(): the value stays") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        promise<int> made;
        auto const answer = made.get_future();
        with_task_group([&](task_group& group) {
            group.start_soon(slowly([&] { made.set_value(42); }));
            at.run([&] {
                (void)answer.wait_for(std::chrono::milliseconds(1));
                check(answer.get() == 42, "the value");
            });
        });
        check(answer.get() == 42, "it can be had again");
    }));
}

TEST_CASE("M2, NX5: gather(), race() and map_concurrent() leave nothing running") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        int running = 0;
        struct counted {
            int& count;
            explicit counted(int& of) : count(of) { ++count; }
            ~counted() { --count; }
        };
        auto const call = [&] {
            counted const here(running);
            lowlevel::checkpoint();
            return 1;
        };
        bool const through = at.run([&] {
            auto const [one, two] = gather(call, call);
            check(one + two == 2, "both values");
            (void)race(call, call);
            auto const all = map_concurrent(std::array{1, 2, 3}, 2, [&](int) { return call(); });
            check(all.size() == 3, "all values");
            as_completed(std::vector{call, call}, [](task_handle<int> done) { (void)done.wait(); });
        });
        check(running == 0, "nothing goes on behind their backs");
        check(through || at.cancelled(), "only a cancellation cuts them short");
    }));
}

TEST_CASE("T2, T3: to_thread.run_sync(): the function ran to its end, or never") {
    expect_points(cancel_at_every_suspension_point([](attempt& at) {
        capacity_limiter tokens(1);
        int other = 0, begun = 0, ended = 0;
        with_task_group([&](task_group& group) {
            tokens.acquire_on_behalf_of(&other);
            group.start_soon(slowly([&] { tokens.release_on_behalf_of(&other); }));
            at.run([&] {
                to_thread::run_sync({.limiter = &tokens}, [&] {
                    ++begun;
                    ++ended;
                });
                lowlevel::checkpoint();
            });
            check(begun == ended && begun <= 1, "once to its end, or never");
        });
        check(begun == 1 || at.cancelled(), "only a cancellation keeps it from running");
        check(tokens.borrowed_tokens() == 0, "the token is back");
    }));
}

TEST_SUITE_END();
