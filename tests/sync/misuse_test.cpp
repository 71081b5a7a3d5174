// What is done wrong is refused by an error whose text says what it was.

#include "each_runtime.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/sync/barrier.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/combinators.hpp>
#include <weft/sync/condition_variable.hpp>
#include <weft/sync/future.hpp>
#include <weft/sync/latch.hpp>
#include <weft/sync/mutex.hpp>
#include <weft/sync/semaphore.hpp>
#include <weft/sync/shared_mutex.hpp>
#include <weft/sync/wait_group.hpp>

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using weft::test::check;

/// That error and no derived one, with that in its text.
template <class Failure, class Call> void refuses(std::string const& naming, Call&& call) {
    std::string said = "nothing";
    try {
        call();
    } catch (Failure const& refused) {
        check(typeid(refused) == typeid(Failure), "another type of error for: " + naming);
        said = refused.what();
    }
    check(said.find(naming) != std::string::npos, "expected '" + naming + "', got: " + said);
}

template <class Body> void in_another_task(Body&& body) {
    weft::with_task_group([&](weft::task_group& group) { group.start_soon(body); });
}

} // namespace

TEST_SUITE_BEGIN("sync.misuse");

TEST_CASE("LK1, LK3: unlocking what one does not own, and locking what one does, is named") {
    on_each_runtime([] {
        std::string const not_held = "the current task does not hold this mutex";
        weft::mutex mutex;
        refuses<std::logic_error>(not_held, [&] { mutex.unlock(); });
        mutex.lock();
        refuses<std::logic_error>("holds this mutex already", [&] { mutex.lock(); });
        refuses<std::logic_error>("holds this mutex already", [&] { mutex.acquire_nowait(); });
        in_another_task([&] {
            refuses<std::logic_error>(not_held, [&] { mutex.unlock(); });
            refuses<weft::would_block>("held by another task", [&] { mutex.acquire_nowait(); });
        });
        mutex.unlock();
        refuses<std::logic_error>(not_held, [&] { mutex.unlock(); });
    });
}

TEST_CASE("a shared_mutex names its misuse, by readers and by writers") {
    on_each_runtime([] {
        weft::shared_mutex mutex;
        refuses<std::logic_error>("does not hold this shared_mutex", [&] { mutex.unlock(); });
        refuses<std::logic_error>("nobody holds this shared_mutex as a reader",
                                  [&] { mutex.unlock_shared(); });
        mutex.lock();
        refuses<std::logic_error>("holds this shared_mutex already", [&] { mutex.lock(); });
        in_another_task([&] {
            refuses<std::logic_error>("does not hold this shared_mutex", [&] { mutex.unlock(); });
        });
        mutex.unlock();
    });
}

TEST_CASE("CD2, CD3: waiting and notifying without the mutex is named, with the call") {
    on_each_runtime([] {
        weft::mutex mutex;
        weft::condition_variable condition(mutex);
        refuses<std::logic_error>(
            "condition_variable.wait: the current task does not hold the mutex",
            [&] { condition.wait(); });
        refuses<std::logic_error>("condition_variable.notify: the current task does not hold",
                                  [&] { condition.notify(); });
        refuses<std::logic_error>("condition_variable.notify: the current task does not hold",
                                  [&] { condition.notify_all(); });
    });
}

TEST_CASE("SM1, SM3: a semaphore names releases past its maximum, and impossible beginnings") {
    on_each_runtime([] {
        weft::semaphore permits(1, {.max_value = 1});
        refuses<std::logic_error>("released too many times", [&] { permits.release(); });
        check(permits.value() == 1, "unchanged");
        permits.acquire();
        refuses<weft::would_block>("no permit left", [&] { permits.acquire_nowait(); });
        permits.release();
        refuses<std::invalid_argument>("above max_value",
                                       [] { weft::semaphore(2, {.max_value = 1}); });
        refuses<std::invalid_argument>("negative", [] { weft::semaphore(std::size_t(-1)); });
    });
}

TEST_CASE(
    "CL1, CL2: a limiter names negative and fractional totals, and tokens not held or held twice") {
    on_each_runtime([] {
        std::string const not_whole = "total_tokens must be a whole number or infinity";
        std::string const negative = "total_tokens must not be negative";
        weft::capacity_limiter limiter(1);
        for (double const wrong : {0.5, -0.5, std::nan("")}) {
            refuses<std::invalid_argument>(
                not_whole, [&] { static_cast<void>(weft::capacity_limiter{wrong}); });
            refuses<std::invalid_argument>(not_whole, [&] { limiter.set_total_tokens(wrong); });
        }
        refuses<std::invalid_argument>(negative, [] { weft::capacity_limiter(-1); });
        refuses<std::invalid_argument>(negative, [&] { limiter.set_total_tokens(-1); });
        refuses<std::invalid_argument>(negative, [&] { limiter.set_total_tokens(-INFINITY); });
        refuses<std::logic_error>("holds none of this capacity limiter's tokens",
                                  [&] { limiter.release(); });
        limiter.acquire();
        refuses<std::logic_error>("already holds one of this capacity limiter's tokens",
                                  [&] { limiter.acquire(); });
        int other = 0;
        refuses<weft::would_block>("no token",
                                   [&] { limiter.acquire_on_behalf_of_nowait(&other); });
        refuses<std::logic_error>("holds none of this capacity limiter's tokens",
                                  [&] { limiter.release_on_behalf_of(&other); });
        limiter.release();
        check(limiter.total_tokens() == 1 && limiter.borrowed_tokens() == 0, "unchanged");
    });
}

TEST_CASE("counters of arrivals name negative numbers and counts that go too far") {
    on_each_runtime([] {
        refuses<std::invalid_argument>("cannot expect a negative number", [] { weft::latch(-1); });
        weft::latch latch(1);
        refuses<std::invalid_argument>("cannot be counted up", [&] { latch.count_down(-1); });
        refuses<std::logic_error>("counted down below zero", [&] { latch.count_down(2); });
        check(!latch.try_wait(), "unchanged");

        refuses<std::invalid_argument>("cannot expect a negative number",
                                       [] { weft::barrier<>(-1); });
        weft::barrier<> barrier(2);
        refuses<std::logic_error>("more arrive at a barrier than it expects",
                                  [&] { static_cast<void>(barrier.arrive(3)); });

        weft::wait_group group;
        refuses<std::logic_error>("done() was called more often", [&] { group.done(); });
    });
}

TEST_CASE("a promise that was moved from, and an exception that is none, are named") {
    std::string const moved = "this promise was moved from";
    weft::promise<int> promise;
    auto const future = promise.get_future();
    refuses<std::invalid_argument>("given no exception", [&] { promise.set_exception(nullptr); });
    check(!future.done(), "unchanged");
    weft::promise<int> const kept = std::move(promise);
    refuses<std::logic_error>(moved, [&] { promise.set_value(1); });
    refuses<std::logic_error>(moved, [&] { promise.set_exception(nullptr); });
    refuses<std::logic_error>(moved, [&] { static_cast<void>(promise.get_future()); });
    weft::promise<void> nothing;
    weft::promise<void> const other = std::move(nothing);
    refuses<std::logic_error>(moved, [&] { nothing.set_value(); });
    refuses<std::logic_error>(moved, [&] { static_cast<void>(nothing.get_future()); });
}

TEST_CASE("a promise is kept once, and a limit of 0 is no limit: both are named") {
    on_each_runtime([] {
        weft::promise<int> promise;
        promise.set_value(1);
        refuses<std::logic_error>("the promise has been kept already",
                                  [&] { promise.set_value(2); });
        std::vector<int> const items{1};
        refuses<std::invalid_argument>("a limit of 0 lets nothing run",
                                       [&] { weft::for_each_concurrent(items, 0, [](int) {}); });
    });
}

TEST_SUITE_END();
