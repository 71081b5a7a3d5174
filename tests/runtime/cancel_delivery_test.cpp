#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <thread>

#include <atomic>
#include <deque>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

struct ordinary : std::runtime_error {
    ordinary() : std::runtime_error("ordinary") {}
};

bool checkpoint_throws() {
    try {
        lowlevel::checkpoint();
        return false;
    } catch (cancelled const&) { // the test asks just this
        return true;
    }
}

} // namespace

TEST_SUITE("runtime.cancel_delivery") {

    TEST_CASE("C28: a cancellation reaches the tasks of groups inside, at any depth, but no shield") {
        run_test([] {
            std::atomic<int> cut{0};
            std::atomic<bool> kept{false};
            auto const waits = [&] {
                try {
                    sleep_forever();
                } catch (cancelled const&) {
                    ++cut;
                    throw;
                }
            };
            cancel_scope scope;
            with_task_group([&](task_group& outside) {
                outside.start_soon([&] {
                    scope.run([&] {
                        with_task_group([&](task_group& group) {
                            group.start_soon(waits);
                            group.start_soon([&] {
                                with_task_group([&](task_group& inner) {
                                    inner.start_soon(waits);
                                    inner.start_soon(waits);
                                });
                            });
                            group.start_soon([&] {
                                shielded([&] {
                                    with_task_group([&](task_group& inner) {
                                        inner.start_soon([&] {
                                            sleep(2ms);
                                            kept = true;
                                        });
                                    });
                                });
                            });
                        });
                    });
                });
                wait_all_tasks_blocked();
                scope.cancel();
            });
            CHECK(cut == 3);
            CHECK(kept);
        });
    }

    TEST_CASE("C29: a task whose scope is cancelled before it starts still runs to its first checkpoint") {
        run_test([] {
            std::atomic<int> begun{0};
            std::atomic<int> went_on{0};
            with_task_group([&](task_group& group) {
                group.cancel();
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&] {
                        ++begun;
                        lowlevel::checkpoint();
                        ++went_on;
                    });
            });
            CHECK(begun == 10);
            CHECK(went_on == 0);
        });
    }

    TEST_CASE("C31: after cancel() returned, the waiters are gone for other wakers") {
        run_test({.times = 20}, [] {
            detail::wait_queue queue;
            std::atomic<int> cut{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 3; ++task)
                    group.start_soon([&] {
                        detail::parking wait("test");
                        detail::wait_node node(wait);
                        queue.lock();
                        queue.waiters.push_back(node);
                        queue.unlock();
                        detail::wake_reason const why = wait.suspend();
                        queue.leave(node);
                        if (why == detail::wake_reason::cancelled) ++cut;
                    });
                wait_all_tasks_blocked();
                group.cancel();
                queue.lock();
                detail::wait_node* const winner = queue.claim_front();
                queue.unlock();
                CHECK(winner == nullptr);
            });
            CHECK(cut == 3);
        });
    }

    TEST_CASE("C32: after an inner scope consumed its cancellation the outer one still throws") {
        run_test([] {
            cancel_scope outer;
            cancel_scope inner({.shield = true});
            bool thrown_again = false;
            outer.run([&] {
                outer.cancel();
                inner.run([&] { CHECK_FALSE(checkpoint_throws()); });
                thrown_again = checkpoint_throws();
            });
            CHECK(thrown_again);

            cancel_scope around;
            std::atomic<bool> again{false};
            with_task_group([&](task_group& group) { // the same for a cancellation from elsewhere
                group.start_soon([&] {
                    around.run([&] {
                        cancel_scope own({.shield = true});
                        own.run([&] {
                            around.cancel();
                            own.cancel();
                            sleep_forever();
                        });
                        again = checkpoint_throws();
                    });
                });
            });
            CHECK(again);
        });
    }

    TEST_CASE("C33: a scope that is not cancelled leaves a foreign cancellation alone") {
        run_test([] {
            std::exception_ptr foreign;
            cancel_scope first;
            first.run([&] {
                first.cancel();
                try {
                    lowlevel::checkpoint();
                } catch (cancelled const&) {
                    foreign = std::current_exception();
                }
            });
            cancel_scope second;
            check_throws<cancelled>([&] { second.run([&] { std::rethrow_exception(foreign); }); },
                                    "the foreign cancellation");
            CHECK_FALSE(second.cancelled_caught());
            cancel_scope third; // the scope's state decides, not whose cancellation it is
            CHECK_FALSE(third.run([&] {
                third.cancel();
                std::rethrow_exception(foreign);
            }));
            CHECK(third.cancelled_caught());
        });
    }

    TEST_CASE("C34: pending_cancellation is what the next checkpoint would do") {
        run_test([] {
            cancel_scope outer;
            outer.run([&] {
                CHECK_FALSE(get_current_task().pending_cancellation);
                outer.cancel();
                CHECK(get_current_task().pending_cancellation);
                shielded([] { CHECK_FALSE(get_current_task().pending_cancellation); });
                CHECK(get_current_task().pending_cancellation);
            });
            CHECK_FALSE(get_current_task().pending_cancellation);
        });
    }

    TEST_CASE("C35: the exception says why, and by whom") {
        run_test([] {
            auto const reason_in = [](cancel_scope& scope) {
                std::string reason;
                scope.run([&] {
                    try {
                        sleep_forever();
                    } catch (cancelled const& cancellation) {
                        reason = cancellation.reason();
                        throw;
                    }
                });
                return reason;
            };
            cancel_scope given;
            with_task_group([&](task_group& group) {
                group.start_soon({.name = "the canceller"}, [&] { given.cancel("out of patience"); });
                std::string const reason = reason_in(given);
                CHECK(reason.find("out of patience") != std::string::npos);
                CHECK(reason.find("the canceller") != std::string::npos);
            });
            cancel_scope timed({.deadline = current_time() + 1ms});
            CHECK(reason_in(timed).find("deadline") != std::string::npos);
        });
    }

    TEST_CASE("C36: an error thrown while a cancellation is handled replaces it") {
        run_test([] {
            cancel_scope scope;
            check_throws<ordinary>(
                [&] {
                    scope.run([&] {
                        scope.cancel();
                        try {
                            lowlevel::checkpoint();
                        } catch (cancelled const&) { // replaced
                            throw ordinary();
                        }
                    });
                },
                "the error of the handler");
            CHECK_FALSE(scope.cancelled_caught());
        });
    }

    TEST_CASE("C37: a scope entered while its parent is being cancelled is cancelled, too") {
        run_test({.seeds = {0, 1}, .times = 100}, [] {
            cancel_scope outer;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { outer.cancel(); });
                group.start_soon([&] {
                    CHECK_FALSE(outer.run([] {
                        for (;;) { // enters and leaves scopes all the time
                            cancel_scope inner;
                            inner.run([] {
                                cancel_scope innermost;
                                innermost.run([] { lowlevel::cancel_shielded_checkpoint(); });
                            });
                            with_task_group([](task_group& children) {
                                children.start_soon([] { lowlevel::checkpoint(); });
                            });
                            lowlevel::checkpoint_if_cancelled();
                        }
                    }));
                });
            });
        });
    }

    TEST_CASE("C38: a scope that is left while somebody cancels it either caught it or did not") {
        run_test({.seeds = {0, 1, 2}, .times = 100}, [] {
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { scope.cancel(); });
                bool const finished = scope.run([] {
                    lowlevel::cancel_shielded_checkpoint();
                    lowlevel::checkpoint();
                });
                CHECK(finished != scope.cancelled_caught());
            });
            CHECK(scope.cancel_called());
            lowlevel::checkpoint();
        });
    }

    TEST_CASE("M3, M16: an event and a cancellation at the same moment: one of them wins, nothing is lost") {
        run_test({.times = 100}, [] {
            gate opened;
            cancel_scope scope;
            with_task_group([&](task_group& group) {
                group.start_soon([&] { opened.open(); });
                group.start_soon([&] { scope.cancel(); });
                bool const finished = scope.run([&] { opened.wait(); });
                CHECK(finished != scope.cancelled_caught());
            });
        });
    }

    TEST_CASE(
        "M4: a cancellation by a thread reaches a task wherever it is on its way into a wait") {
        run_test({.seeds = {}, .times = 3}, [] {
            std::deque<cancel_scope> scopes(25);
            std::atomic<std::size_t> begun{0};
            auto const spin = [](std::size_t turns) {
                for (std::atomic<std::size_t> turn = 0; turn < turns;)
                    ++turn;
            };
            std::thread canceller([&] {
                for (std::size_t number = 0; number < scopes.size(); ++number) {
                    while (begun <= number)
                        std::this_thread::yield();
                    spin(number % 23 * 5);
                    scopes[number].cancel();
                }
            });
            std::size_t ran_on = 0;
            for (std::size_t number = 0; number < scopes.size(); ++number) {
                check(!scopes[number].run([&] {
                    begun = number + 1;
                    spin(number % 19 * 5);
                    ++ran_on;
                    if (number % 2 == 0) sleep_forever();
                    gate().wait();
                }),
                      "it is cut short");
            }
            canceller.join();
            check(ran_on == scopes.size(), "what runs goes on to its next checkpoint");
        });
    }

    TEST_CASE("M3: an event that came first beats a later cancellation") {
        run_test([] {
            gate opened;
            cancel_scope scope;
            bool got_it = false;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    scope.run([&] {
                        opened.wait();
                        got_it = true;
                        lowlevel::checkpoint();
                        check(false, "not reached");
                    });
                });
                wait_all_tasks_blocked();
                opened.open();
                scope.cancel();
            });
            CHECK(got_it);
            CHECK(scope.cancelled_caught());
        });
    }

    TEST_CASE("C30: a cancellation waits for the end of a wait that cannot be cancelled") {
        run_test([] {
            cancel_scope scope;
            gate opened;
            bool child_ended = false;
            bool const through = scope.run([&] {
                with_task_group([&](task_group& group) { // whose exit is such a wait
                    group.start_soon([&] {
                        shielded([&] { opened.wait(); });
                        child_ended = true;
                    });
                    lowlevel::checkpoint();
                    scope.cancel();
                    opened.open();
                });
                check(child_ended, "the group's exit waited");
                lowlevel::checkpoint();
                check(false, "and then the cancellation comes");
            });
            check(!through, "cut short");
        });
    }

    TEST_CASE("C39: cancel() after the scope was left, from a thread, does nothing") {
        run_test([] {
            cancel_scope scope;
            scope.run([] { lowlevel::checkpoint(); });
            std::thread([&] { scope.cancel(); }).join();
            check(scope.cancel_called() && !scope.cancelled_caught(), "only the flag");
            lowlevel::checkpoint();
        });
    }

    namespace {

    /// Three that do the same at the same moment: the first task and two threads.
    template <class Call> void at_once(Call const& call) {
        std::atomic<int> ready{0};
        auto const take_part = [&](int who) {
            ++ready;
            while (ready < 3)
                std::this_thread::yield(); // the others may have no processor yet
            call(who);
        };
        std::thread second([&] { take_part(1); });
        std::thread third([&] { take_part(2); });
        take_part(0);
        second.join();
        third.join();
    }

    struct crowd {
        detail::wait_queue queue;
        std::atomic<int> cut{0};
        std::atomic<bool> found_waiter{false};

        void wait() {
            detail::parking wait("test");
            detail::wait_node node(wait);
            queue.lock();
            queue.waiters.push_back(node);
            queue.unlock();
            detail::wake_reason const why = wait.suspend();
            queue.leave(node);
            if (why == detail::wake_reason::cancelled) ++cut;
        }
        void look() {
            queue.lock();
            detail::wait_node* const winner = queue.claim_front();
            queue.unlock();
            if (winner == nullptr) return;
            found_waiter = true;
            detail::wait_queue::deliver(*winner);
        }
    };

    } // namespace

    TEST_CASE("C31, C25: of several cancel() at the same time each returns only when the waiters "
              "are gone") {
        for (int size : {0, 30, 300})
            run_test({.seeds = {}, .times = 20}, [size] {
                crowd waits;
                cancel_scope scope;
                std::string reasons[3];
                with_task_group([&](task_group& around) {
                    around.start_soon([&] {
                        scope.run([&] {
                            if (size == 0) return waits.wait();
                            with_task_group([&](task_group& group) {
                                for (int task = 0; task < size; ++task)
                                    group.start_soon([&] { waits.wait(); });
                                group.start_soon([&] {
                                    with_task_group([&](task_group& inner) {
                                        for (int task = 0; task < size; ++task)
                                            inner.start_soon([&] { waits.wait(); });
                                    });
                                });
                            });
                        });
                    });
                    wait_all_tasks_blocked();
                    at_once([&](int who) {
                        scope.cancel("number " + std::to_string(who));
                        waits.look();
                        reasons[who] = scope.cancel_reason();
                    });
                });
                check(!waits.found_waiter, "nobody waits after cancel()");
                CHECK(waits.cut == (size == 0 ? 1 : 2 * size));
                check(reasons[0].starts_with("number ") && reasons[0] == reasons[1] &&
                          reasons[0] == reasons[2],
                      "one reason");
            });
    }

    TEST_CASE(
        "C31, NX1: of several cancel() of one handle each returns only when the waiters are gone") {
        run_test({.seeds = {}, .times = 20}, [] {
            crowd waits;
            with_task_group([&](task_group& group) {
                auto const handle = group.create_task([&] {
                    with_task_group([&](task_group& inner) {
                        for (int task = 0; task < 100; ++task)
                            inner.start_soon([&] { waits.wait(); });
                    });
                });
                wait_all_tasks_blocked();
                at_once([&](int) {
                    handle.cancel();
                    waits.look();
                });
            });
            check(!waits.found_waiter, "nobody waits after cancel()");
            CHECK(waits.cut == 100);
        });
    }

    TEST_CASE("C31, C21: a deadline that is set into the past while another cancels: nobody waits "
              "afterwards") {
        run_test({.seeds = {}, .times = 20}, [] {
            crowd waits;
            cancel_scope scope;
            with_task_group([&](task_group& around) {
                around.start_soon([&] {
                    scope.run([&] {
                        with_task_group([&](task_group& group) {
                            for (int task = 0; task < 200; ++task)
                                group.start_soon([&] { waits.wait(); });
                        });
                    });
                });
                wait_all_tasks_blocked();
                at_once([&](int who) {
                    who == 0 ? scope.cancel("by hand") : scope.set_deadline(time_point::min());
                    waits.look();
                });
            });
            check(!waits.found_waiter, "nobody waits after it");
            CHECK(waits.cut == 200);
            std::string const reason = scope.cancel_reason();
            check(reason.empty() || reason == "by hand", "one cause");
        });
    }

    TEST_CASE("C31: a scope that was cancelled before tells those that come later, and cancels "
              "again for free") {
        run_test([] {
            int begun = 0, went_on = 0;
            with_task_group([&](task_group& group) {
                group.cancel();
                group.start_soon([&] {
                    ++begun;
                    lowlevel::checkpoint();
                    ++went_on;
                });
                group.cancel();
            });
            check(begun == 1 && went_on == 0, "up to its first checkpoint");
        });
    }
}
