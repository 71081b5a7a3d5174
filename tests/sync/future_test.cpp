#include <weft/sync/future.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

TEST_SUITE_BEGIN("sync.future");

TEST_CASE("NX6: a value is set once and read by everybody") {
    on_each_runtime([] {
        weft::promise<std::string> promise;
        auto const future = promise.get_future();
        std::atomic<int> read = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int reader = 0; reader < 4; ++reader)
                group.start_soon([&read, future] {
                    if (future.get() == "kept") ++read;
                });
            weft::wait_all_tasks_blocked();
            promise.set_value("kept");
        });
        CHECK(read == 4);
        CHECK(throws<std::logic_error>([&] { promise.set_value("again"); }));
        CHECK(throws<std::logic_error>(
            [&] { promise.set_exception(std::make_exception_ptr(std::runtime_error(""))); }));
        CHECK_FALSE(future.cancel());
        CHECK(future.get() == "kept");
    });
}

TEST_CASE("NX6: a value that cannot be copied goes to the first who asks") {
    on_each_runtime([] {
        weft::promise<std::unique_ptr<int>> promise;
        auto const future = promise.get_future();
        promise.set_value(std::make_unique<int>(4));
        CHECK(*future.get() == 4);
        CHECK(throws<std::logic_error>([&] { future.get(); }));
    });
}

TEST_CASE("NX6: cancelled, it cannot be set") {
    on_each_runtime([] {
        weft::promise<int> promise;
        auto const future = promise.get_future();
        CHECK(future.cancel());
        CHECK_FALSE(future.cancel());
        CHECK(future.cancelled());
        CHECK(future.done());
        CHECK(throws<weft::future_cancelled>([&] { promise.set_value(1); }));
        CHECK(throws<weft::future_cancelled>([&] { future.get(); }));
    });
}

TEST_CASE("a promise destroyed unset cancels its future") {
    on_each_runtime([] {
        std::optional<weft::promise<int>> promise(std::in_place);
        auto const future = promise->get_future();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                if (!throws<weft::future_cancelled>([&] { future.get(); }))
                    throw std::runtime_error("a value from nowhere");
            });
            weft::wait_all_tasks_blocked();
            promise.reset();
        });
        CHECK(future.cancelled());
    });
}

TEST_CASE("a promise that was moved from does not cancel anything") {
    weft::promise<void> promise;
    auto const future = promise.get_future();
    { weft::promise<void> const other = std::move(promise); }
    CHECK(future.cancelled());
    weft::promise<void> first;
    auto const kept = first.get_future();
    weft::promise<void> second(std::move(first));
    second.set_value();
    kept.get();
}

TEST_CASE("a future that was given away still names its value") {
    weft::promise<int> promise;
    auto first = promise.get_future();
    auto second = std::move(first);
    CHECK_FALSE(first.done());
    promise.set_value(7);
    CHECK(first.get() == 7);
    first = std::move(second);
    CHECK(second.get() == 7);
}

TEST_CASE("a cancelled get() leaves the queue") {
    often_on_each_runtime(60, [] {
        weft::promise<int> promise;
        auto const future = promise.get_future();
        weft::cancel_scope scope;
        std::atomic<int> read = 0;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { future.get(); }); });
            group.start_soon([&] { read += future.get(); });
            group.start_soon([&] { scope.cancel(); });
            group.start_soon([&] { promise.set_value(5); });
        });
        CHECK(read == 5);
    });
}

TEST_CASE("wait_for() waits no longer than it says") {
    on_each_runtime([] {
        weft::promise<void> promise;
        auto const future = promise.get_future();
        CHECK_FALSE(future.wait_for(0ns));
        CHECK_FALSE(future.wait_for(1ms));
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { promise.set_value(); });
            CHECK(future.wait_for(weft::duration::max()));
        });
        CHECK(future.wait_for(0ns));
    });
}

TEST_CASE("OS threads wait as well, with and without a limit") {
    for (int round = 0; round < 20; ++round) {
        weft::promise<int> promise;
        auto const future = promise.get_future();
        CHECK_FALSE(future.wait_for(10us));
        std::vector<std::thread> readers;
        std::atomic<int> sum = 0;
        for (int reader = 0; reader < 3; ++reader)
            readers.emplace_back([&sum, future] { sum += future.get(); });
        weft::run([&] { promise.set_value(7); });
        for (std::thread& reader : readers)
            reader.join();
        CHECK(sum == 21);
    }
}

TEST_CASE("M15, B14: set_value() against cancel(): one of them wins, everybody is told") {
    often_on_each_runtime(80, [] {
        std::atomic<int> values = 0;
        std::atomic<int> cancellations = 0;
        std::atomic<int> calls = 0;
        bool kept = false;
        bool cut = false;
        weft::with_task_group([&](weft::task_group& group) {
            auto promise = std::make_unique<weft::promise<int>>();
            auto future = promise->get_future();
            for (int reader = 0; reader < 2; ++reader)
                group.start_soon([&, future] {
                    if (throws<weft::future_cancelled>([&] { future.get(); }))
                        ++cancellations;
                    else
                        ++values;
                });
            future.on_done([&](weft::future<int> done) { calls += done.done() ? 1 : 100; });
            group.start_soon([&cut, future] { cut = future.cancel(); });
            group.start_soon([&kept, promise = std::move(promise)] {
                kept = !throws<weft::future_cancelled>([&] { promise->set_value(1); });
            });
        });
        CHECK(kept != cut);
        CHECK(values == (kept ? 2 : 0));
        CHECK(cancellations == (cut ? 2 : 0));
        CHECK(calls == 1);
    });
}

TEST_CASE("M15: who is woken by cancel() may destroy the future, the last one of its value") {
    std::atomic<weft::future<int> const*> given = nullptr;
    std::atomic<bool> done = false;
    std::thread canceller([&] {
        while (!done)
            if (auto const* const future = given.exchange(nullptr)) future->cancel();
    });
    int cancelled = 0;
    for (int round = 0; round < 2000; ++round) {
        weft::promise<int> const promise;
        weft::future<int> const future = promise.get_future();
        given = &future;
        cancelled += throws<weft::future_cancelled>([&] { future.get(); });
    }
    done = true;
    canceller.join();
    CHECK(cancelled == 2000);
}

TEST_CASE("B17: callbacks run in the order in which they came, at once when it is done") {
    weft::promise<int> promise;
    auto const future = promise.get_future();
    std::vector<int> order;
    for (int number = 0; number < 3; ++number)
        future.on_done([&order, number](weft::future<int> const& done) {
            order.push_back(number);
            CHECK(done.get() == 2);
        });
    promise.set_value(2);
    future.on_done([&order](auto const&) { order.push_back(3); });
    CHECK(order == std::vector{0, 1, 2, 3});
}

TEST_SUITE_END();
