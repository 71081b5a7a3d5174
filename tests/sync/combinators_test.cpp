#include <weft/sync/combinators.hpp>

#include "each_runtime.hpp"
#include "support/mistakes.hpp"
#include "support/old_cancellation.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <vector>

using namespace std::chrono_literals;

namespace {

// Moved from once, it throws when it is moved again.
struct moves_once {
    int moves = 0;
    moves_once() = default;
    moves_once(moves_once&& other) : moves(other.moves + 1) {
        if (moves > 1) throw std::domain_error("no further");
    }
};

} // namespace

TEST_SUITE_BEGIN("sync.combinators");

TEST_CASE("NX5: gather() gives the results in order of its arguments") {
    on_each_runtime([] {
        weft::event last;
        auto const [first, nothing, box] = weft::gather(
            [&] {
                last.wait();
                return 1;
            },
            [] {}, [&] { return last.set(), std::make_unique<int>(3); });
        CHECK(first == 1);
        CHECK(nothing == std::monostate());
        CHECK(*box == 3);
        CHECK(weft::gather() == std::tuple<>());
    });
}

TEST_CASE("NX5: a failure cancels the others and leaves as a group") {
    on_each_runtime([] {
        std::atomic<bool> cut_short = false;
        bool failed = false;
        try {
            weft::gather([]() -> int { throw std::domain_error("no"); },
                         [&] {
                             try {
                                 weft::sleep_forever();
                             } catch (...) {
                                 cut_short = true;
                                 throw;
                             }
                         });
        } catch (weft::exception_group const& group) {
            failed = group.contains<std::domain_error>() && group.exceptions().size() == 1;
        }
        CHECK(failed);
        CHECK(cut_short);
    });
}

TEST_CASE("a cancelled gather() joins its callables") {
    on_each_runtime([] {
        std::atomic<int> joined = 0;
        auto const endless = [&] {
            try {
                weft::sleep_forever();
            } catch (...) {
                ++joined;
                throw;
            }
        };
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { weft::gather(endless, endless); }); });
            weft::wait_all_tasks_blocked(); // cancelled before, gather() would call nothing
            scope.cancel();
        });
        CHECK(scope.cancelled_caught());
        CHECK(joined == 2);
    });
}

TEST_CASE("the first to finish decides a race, with its value or its error") {
    on_each_runtime([] {
        auto const winner = weft::race([] { weft::sleep_forever(); }, [] { return 4; });
        CHECK(winner.index() == 1);
        CHECK(std::get<1>(winner) == 4);
        CHECK(throws<std::domain_error>([] {
            weft::race([] { weft::sleep_forever(); }, []() -> int { throw std::domain_error("no"); });
        }));
    });
}

TEST_CASE("what the losers of a race throw is dropped, and they are joined") {
    often_on_each_runtime(30, [] {
        std::atomic<int> ended = 0;
        auto const loser = [&] {
            try {
                weft::sleep_forever();
            } catch (...) { // it turns its cancellation into an error
                ++ended;
                throw std::runtime_error("too late");
            }
        };
        auto const winner = weft::race(loser, [] { return 1; }, loser, [] { return 2; });
        CHECK((winner.index() == 1 || winner.index() == 3));
        CHECK(ended == 2);
    });
}

TEST_CASE("a cancelled race is cancelled") {
    on_each_runtime([] {
        CHECK_FALSE(weft::move_on_after(1ms, [] {
            weft::race([] { weft::sleep_forever(); }, [] { weft::sleep_forever(); });
        }));
    });
}

TEST_CASE("M3: a race that was decided before it is cancelled keeps its outcome, value or error") {
    on_each_runtime([] {
        weft::test::mistakes_heard mistakes;
        weft::cancel_scope of_value;
        weft::cancel_scope of_error;
        auto const loser_that_cancels = [](weft::cancel_scope& outer) {
            return [&outer] {
                try {
                    weft::sleep_forever();
                } catch (weft::cancelled const&) { // the race is decided, and its losers are being joined
                    outer.cancel();
                    throw;
                }
            };
        };
        int value = 0;
        bool ran_on = false;
        of_value.run([&] {
            auto const five = [] { return std::make_unique<int>(5); };
            value = *std::get<0>(weft::race(five, loser_that_cancels(of_value)));
            weft::lowlevel::checkpoint(); // here it comes
            ran_on = true;
        });
        CHECK(value == 5);
        CHECK(of_value.cancelled_caught());
        CHECK_FALSE(ran_on);
        of_error.run([&] {
            CHECK(throws<std::domain_error>([&] {
                weft::race([] { throw std::domain_error("no"); }, loser_that_cancels(of_error));
            }));
            ran_on = true;
        });
        CHECK(ran_on);
        CHECK(mistakes.get().empty());
    });
}

TEST_CASE("M3: what a cancelled race makes of that: a value counts, an error does not") {
    on_each_runtime([] {
        weft::test::mistakes_heard const tolerated; // the racers keep their cancellation to themselves
        weft::cancel_scope of_error;
        weft::cancel_scope of_value;
        auto const until_cancelled = [](auto then) {
            return [then] {
                try {
                    weft::sleep_forever();
                } catch (weft::cancelled const&) {
                    return then();
                }
            };
        };
        bool given = false;
        auto const race_until = [&](weft::cancel_scope& scope, auto then) {
            scope.run([&] {
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon([&] {
                        weft::wait_all_tasks_blocked();
                        scope.cancel();
                    });
                    weft::race(until_cancelled(then), [] { weft::sleep_forever(); });
                    given = true;
                });
            });
        };
        race_until(of_error, [] { throw std::domain_error("the cleanup failed"); });
        CHECK_FALSE(given);
        CHECK(of_error.cancelled_caught());
        race_until(of_value, [] { return 7; });
        CHECK(given);
    });
}

TEST_CASE("map_concurrent() keeps the order and the limit") {
    on_each_runtime([] {
        std::atomic<int> active = 0;
        std::atomic<bool> crowded = false;
        std::vector<int> numbers(40);
        std::iota(numbers.begin(), numbers.end(), 0);
        auto const squares = weft::map_concurrent(numbers, 3, [&](int& number) {
            if (++active > 3) crowded = true;
            if (number % 3 == 0) weft::lowlevel::checkpoint();
            --active;
            return number * number;
        });
        CHECK_FALSE(crowded);
        CHECK(squares.size() == 40);
        CHECK(squares[7] == 49);
        auto const even = weft::map_concurrent(numbers, 64, [](int number) { return number % 2 == 0; });
        CHECK(even[2]);
        CHECK_FALSE(even[3]);
        CHECK(weft::map_concurrent(std::vector<int>(), 1, [](int number) { return number; }).empty());
    });
}

TEST_CASE("map_concurrent() takes ranges that are made while it runs, and results that only move") {
    on_each_runtime([] {
        std::istringstream words("3 1 2");
        auto const boxes = weft::map_concurrent(std::views::istream<int>(words), 2, [](int number) {
            return std::make_unique<int>(number);
        });
        CHECK(boxes.size() == 3);
        CHECK(*boxes[0] == 3);
        auto const doubled = weft::map_concurrent(std::views::iota(0, 5), std::size_t(-1),
                                                  [](int number) { return 2 * number; });
        CHECK(doubled == std::vector{0, 2, 4, 6, 8});
    });
}

TEST_CASE("a failure in a concurrent loop cancels the rest and leaves as a group") {
    on_each_runtime([] {
        std::atomic<int> begun = 0;
        CHECK(throws<weft::exception_group>([&] {
            weft::for_each_concurrent(std::views::iota(0, 100), 2, [&](int number) {
                ++begun;
                if (number == 3) throw std::domain_error("no");
                if (number > 3) weft::sleep_forever();
            });
        }));
        CHECK(begun <= 6);
        CHECK(throws<std::invalid_argument>(
            [] { weft::for_each_concurrent(std::vector{1}, 0, [](int) {}); }));
    });
}

TEST_CASE("NX5: as_completed() gives each handle as its task ends, here") {
    on_each_runtime([] {
        weft::event gates[3];
        std::vector<std::function<int()>> calls;
        for (int number = 0; number < 3; ++number)
            calls.emplace_back([&gates, number] {
                gates[number].wait();
                return number;
            });
        std::vector<int> order;
        gates[2].set();
        weft::as_completed(calls, [&](weft::task_handle<int> const& ended) {
            CHECK(ended.done());
            order.push_back(ended.wait());
            if (order.size() == 1) gates[0].set();
            if (order.size() == 2) gates[1].set();
        });
        CHECK(order == std::vector{2, 0, 1});
    });
}

TEST_CASE("NX5: as_completed() of a range that is empty ends at once, as map_concurrent() does") {
    on_each_runtime([] {
        std::vector<int (*)()> const none;
        int ended = 0;
        weft::as_completed(none, [&](weft::task_handle<int> const&) { ++ended; });
        CHECK(ended == 0);
        CHECK(weft::map_concurrent(none, 1, [](int (*call)()) { return call(); }).empty());
    });
}

TEST_CASE("NX5: as_completed() waits for a callable's captures, which may take their time to go") {
    struct slow {
        void operator()(int const* held) const {
            delete held;
            weft::shielded([] { weft::sleep(20ms); });
        }
    };
    struct job {
        std::unique_ptr<int, slow> held;
        int operator()() const { return *held; }
    };
    on_each_runtime([] {
        for (bool const cancelled : {false, true}) {
            std::vector<job> calls;
            calls.push_back({std::unique_ptr<int, slow>(new int(7))});
            int seen = 0;
            weft::cancel_scope scope;
            scope.run([&] {
                weft::as_completed(std::move(calls), [&](weft::task_handle<int> const& ended) {
                    seen = ended.wait();
                    if (cancelled) scope.cancel();
                    weft::lowlevel::checkpoint();
                });
            });
            CHECK(seen == 7);
            CHECK(scope.cancelled_caught() == cancelled);
        }
    });
}

TEST_CASE("a sink that throws cancels the rest") {
    on_each_runtime([] {
        std::vector<std::function<void()>> calls{[] {}, [] { weft::sleep_forever(); }};
        CHECK(throws<weft::exception_group>([&] {
            weft::as_completed(calls, [](auto const&) { throw std::domain_error("enough"); });
        }));
    });
}

TEST_CASE("NX5: who lets a cancellation from elsewhere escape leaves nothing out in silence") {
    on_each_runtime([] {
        std::exception_ptr const foreign = weft::test::old_cancellation();
        std::array const numbers{1, 2, 3, 4, 5, 6};
        auto const give_up_at_3 = [&](int number) {
            if (number == 3) std::rethrow_exception(foreign);
            return number;
        };
        std::vector<std::function<int()>> const calls{[&] { return give_up_at_3(3); },
                                                      [] { return weft::sleep_forever(), 1; }};
        auto const ignore = [](auto const&) {};
        for (std::size_t limit : {1, 2, 6}) {
            CHECK(throws<weft::task_cancelled>(
                [&] { weft::for_each_concurrent(numbers, limit, give_up_at_3); }));
            CHECK(throws<weft::task_cancelled>(
                [&] { weft::map_concurrent(numbers, limit, give_up_at_3); }));
        }
        CHECK(throws<weft::task_cancelled>([&] { weft::as_completed(calls, ignore); }));
        CHECK(throws<weft::task_cancelled>([&] {
            weft::as_completed(std::vector{[] { return 1; }}, [&](auto const&) { give_up_at_3(3); });
        }));
        CHECK(throws<weft::task_cancelled>([&] { weft::gather(calls[0], calls[1]); }));
        CHECK(throws<weft::task_cancelled>([&] { weft::race(calls[0], calls[1]); }));
    });
}

TEST_CASE("M1: in a cancelled scope nothing is called") {
    on_each_runtime([] {
        std::atomic<int> calls = 0;
        auto const call = [&] { return ++calls; };
        auto const call_with = [&](int) { return ++calls; };
        std::vector<int> const none, one{1};
        auto const is_refused = [](auto&& combine) {
            weft::cancel_scope scope;
            scope.cancel();
            CHECK_FALSE(scope.run(combine));
        };
        is_refused([&] { weft::gather(call, call); });
        is_refused([] { weft::gather(); });
        is_refused([&] { weft::race(call, call); });
        is_refused([&] { weft::map_concurrent(one, 1, call_with); });
        is_refused([&] { weft::map_concurrent(none, 1, call_with); });
        is_refused([&] { weft::for_each_concurrent(none, 1, call_with); });
        is_refused([&] { weft::as_completed(std::vector{call}, [](auto const&) {}); });
        CHECK(calls == 0);
    });
}

TEST_CASE("a winner whose result cannot be moved decides the race with that error") {
    on_each_runtime([] {
        auto const fails_to_move = [] { return moves_once(); };
        auto const endless = [] { weft::sleep_forever(); };
        CHECK(throws<std::domain_error>([&] { weft::race(fails_to_move, endless); }));
    });
}

TEST_CASE("as_completed() takes callables that only move out of a range that is given away") {
    on_each_runtime([] {
        auto const make = [](int number) {
            return [box = std::make_unique<int>(number)] { return *box; };
        };
        std::vector<decltype(make(1))> calls;
        calls.push_back(make(1));
        calls.push_back(make(2));
        int sum = 0;
        weft::as_completed(std::move(calls), [&](auto const& ended) { sum += ended.wait(); });
        CHECK(sum == 3);
    });
}

TEST_SUITE_END();
