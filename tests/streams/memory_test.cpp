#include <weft/streams/memory.hpp>

#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

TEST_SUITE_BEGIN("streams.memory");

namespace {

using weft::create_memory_object_stream;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

constexpr double infinite = std::numeric_limits<double>::infinity();

} // namespace

TEST_CASE("MS1: a size is a whole number of at least 0, or infinity") {
    CHECK_THROWS_AS(create_memory_object_stream<int>(-1), std::invalid_argument);
    CHECK_THROWS_AS(create_memory_object_stream<int>(0.5), std::invalid_argument);
    CHECK_THROWS_AS(create_memory_object_stream<int>(std::numeric_limits<double>::quiet_NaN()),
                    std::invalid_argument);
    CHECK(create_memory_object_stream<int>(infinite).send.statistics().max_buffer_size == infinite);
    CHECK(create_memory_object_stream<int>(3).send.statistics().max_buffer_size == 3);
}

TEST_CASE("MS2, MS16: send_nowait() buffers while there is room, and says why it does not") {
    auto pipe = create_memory_object_stream<int>(1);
    pipe.send.send_nowait(1);
    CHECK_THROWS_AS(pipe.send.send_nowait(2), weft::would_block);
    CHECK(pipe.receive.receive_nowait() == 1);
    CHECK_THROWS_AS(pipe.receive.receive_nowait(), weft::would_block);
    pipe.receive.close();
    CHECK_THROWS_AS(pipe.send.send_nowait(3), weft::broken_resource_error);
    pipe.send.close();
    CHECK_THROWS_AS(pipe.send.send_nowait(4), weft::closed_resource_error);

    auto direct = create_memory_object_stream<int>(0);
    CHECK_THROWS_AS(direct.send.send_nowait(1), weft::would_block);
}

TEST_CASE("MS1, MS11, MS17: sizes that are none, and calls on closed ends, are named") {
    auto const names = [](std::string const& expected, auto&& call) {
        std::string said = "nothing";
        try {
            call();
        } catch (std::exception const& refused) {
            said = refused.what();
        }
        CHECK_MESSAGE(said.find(expected) != std::string::npos, expected << ", got: " << said);
    };
    std::string const not_whole = "max_buffer_size must be either an integer or infinity";
    names("max_buffer_size cannot be negative", [] { create_memory_object_stream<int>(-1); });
    names("max_buffer_size cannot be negative", [] { create_memory_object_stream<int>(-infinite); });
    names(not_whole, [] { create_memory_object_stream<int>(0.5); });
    names(not_whole, [] {
        create_memory_object_stream<int>(std::numeric_limits<double>::quiet_NaN());
    });

    std::string const closed = "this end of the memory object stream is closed";
    auto pipe = create_memory_object_stream<int>(1);
    auto other = pipe.send.clone();
    pipe.send.close();
    names(closed, [&] { pipe.send.send_nowait(1); });
    run_test([&] { names(closed, [&] { pipe.send.send(1); }); });
    pipe.receive.close();
    names(closed, [&] { pipe.receive.receive_nowait(); });
    run_test([&] { names(closed, [&] { pipe.receive.receive(); }); });
    names("every receiving end of the memory object stream is closed", [&] { other.send_nowait(1); });
    run_test([&] {
        names("every receiving end of the memory object stream is closed", [&] { other.send(1); });
    });
}

TEST_CASE("MS5, MS16, TR81: what fails at once, or completes, is fine inside no_suspend") {
    for (double const size : {0., 1.})
        run_test([size] {
            auto ended = create_memory_object_stream<int>(size);
            ended.send.close();
            auto broken = create_memory_object_stream<int>(size);
            broken.receive.close();
            auto good = create_memory_object_stream<int>(1);
            weft::no_suspend const ban;
            check_throws<weft::end_of_stream>([&] { ended.receive.receive(); }, "no sender");
            check_throws<weft::broken_resource_error>([&] { broken.send.send(1); }, "no receiver");
            check_throws<weft::closed_resource_error>([&] { broken.receive.receive(); }, "closed");
            check_throws<weft::closed_resource_error>([&] { ended.send.send(1); }, "closed, too");
            good.send.send(5);
            check(good.receive.receive() == 5, "it waits for nothing");
        });
}

TEST_CASE("MS2, MS7: receivers that wait are served in order") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(0);
        std::vector<int> got(3);
        weft::with_task_group([&](weft::task_group& group) {
            for (int place = 0; place < 3; ++place) {
                group.start_soon([&, place] { got[std::size_t(place)] = pipe.receive.receive(); });
                weft::wait_all_tasks_blocked();
            }
            check(pipe.send.statistics().tasks_waiting_receive == 3, "three wait");
            for (int item = 0; item < 3; ++item)
                pipe.send.send_nowait(item);
        });
        check(got == std::vector{0, 1, 2}, "in order");
    });
}

TEST_CASE("MS3: a receiver that was cancelled is passed over, and no item is lost") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(0);
        weft::cancel_scope scope;
        std::atomic<int> got = 0;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { got = -pipe.receive.receive(); }); });
            weft::wait_all_tasks_blocked();
            group.start_soon([&] { got = pipe.receive.receive(); });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            pipe.send.send_nowait(7);
        });
        check(got == 7, "the second one has it");
        check(pipe.send.statistics().tasks_waiting_receive == 0, "nobody waits");
    });
}

TEST_CASE("MS4: a cancelled sender takes its item back") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(0);
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { pipe.send.send(1); }); });
            weft::wait_all_tasks_blocked();
            group.start_soon([&] { pipe.send.send(2); });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            check(pipe.receive.receive() == 2, "the cancelled item is not there");
        });
        check(scope.cancelled_caught(), "cut short");
        check(pipe.send.statistics().tasks_waiting_send == 0, "nobody waits");
    });
}

TEST_CASE("MS4, MS6: in a cancelled scope nothing is sent and nothing taken") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(2);
        pipe.send.send(1);
        weft::cancel_scope scope;
        scope.cancel();
        scope.run([&] { pipe.send.send(2); });
        weft::cancel_scope other;
        other.cancel();
        other.run([&] { pipe.receive.receive(); });
        check(pipe.receive.statistics().current_buffer_used == 1, "as before");
    });
}

TEST_CASE("MS4: sent and then cancelled, send() returns") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(0);
        weft::cancel_scope scope;
        bool sent = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                scope.run([&] {
                    pipe.send.send(1);
                    sent = true;
                });
            });
            weft::wait_all_tasks_blocked();
            check(pipe.receive.receive_nowait() == 1, "the item");
            scope.cancel();
        });
        check(sent, "it was sent");
    });
}

TEST_CASE("MS5: receive_nowait() lets a sender that waits into the buffer") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(1);
        weft::with_task_group([&](weft::task_group& group) {
            pipe.send.send(1);
            group.start_soon([&] { pipe.send.send(2); });
            weft::wait_all_tasks_blocked();
            check(pipe.send.statistics().tasks_waiting_send == 1, "one waits");
            check(pipe.receive.receive_nowait() == 1, "the buffer comes first");
            check(pipe.send.statistics().current_buffer_used == 1, "the sender's item moved up");
            check(pipe.receive.receive_nowait() == 2, "then the sender's");
        });
    });
}

TEST_CASE("MS8: without a buffer nothing is ever at rest in it") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(0);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (int item = 0; item < 50; ++item)
                    pipe.send.send(item);
            });
            for (int item = 0; item < 50; ++item) {
                check(pipe.receive.receive() == item, "in order");
                check(pipe.receive.statistics().current_buffer_used == 0, "nothing buffered");
            }
        });
    });
}

TEST_CASE("MS9, MS12, MS17: clones count, and closing one changes nothing for the others") {
    auto pipe = create_memory_object_stream<int>(1);
    auto twin = pipe.send.clone();
    CHECK(twin.statistics().open_send_streams == 2);
    pipe.send.close();
    pipe.send.close();
    CHECK(pipe.send.statistics().open_send_streams == 1);
    CHECK_THROWS_AS(pipe.send.clone(), weft::closed_resource_error);
    twin.send_nowait(5);
    CHECK(pipe.receive.receive_nowait() == 5);
    {
        auto third = twin.clone();
        CHECK(third.statistics().open_send_streams == 2);
    }
    CHECK(twin.statistics().open_send_streams == 1);
}

TEST_CASE(
    "MS10, MS15, MS20: after the last sender what is buffered comes, then the end, repeatedly") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(5);
        for (int item = 0; item < 3; ++item)
            pipe.send.send(item);
        pipe.send.close();
        int expected = 0;
        for (int const item : pipe.receive)
            check(item == expected++, "in order");
        check(expected == 3, "all came");
        for (int again = 0; again < 2; ++again)
            check_throws<weft::end_of_stream>([&] { pipe.receive.receive(); }, "the end stays");
        pipe.receive.close();
        check_throws<weft::closed_resource_error>([&] { pipe.receive.receive(); }, "closed wins");
    });
}

TEST_CASE("MS10: receivers that wait see the end at once") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(0);
        std::atomic<int> ended = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int number = 0; number < 3; ++number)
                group.start_soon([&] {
                    check_throws<weft::end_of_stream>([&] { pipe.receive.receive(); }, "the end");
                    ++ended;
                });
            weft::wait_all_tasks_blocked();
            pipe.send.close();
        });
        check(ended == 3, "all of them");
    });
}

TEST_CASE("MS11: after the last receiver senders get broken_resource_error, the buffer stays") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(1);
        pipe.send.send(1);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::broken_resource_error>([&] { pipe.send.send(2); }, "waiting");
            });
            weft::wait_all_tasks_blocked();
            pipe.receive.close();
        });
        check_throws<weft::broken_resource_error>([&] { pipe.send.send(3); }, "later");
        check(pipe.send.statistics().current_buffer_used == 1, "still there");
    });
}

TEST_CASE("MS13, MS14: closing a clone wakes those that wait through it, and no others") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(0);
        auto twin = pipe.receive.clone();
        std::atomic<int> closed = 0;
        std::atomic<int> got = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int number = 0; number < 2; ++number)
                group.start_soon([&] {
                    check_throws<weft::closed_resource_error>([&] { twin.receive(); }, "woken");
                    ++closed;
                });
            group.start_soon([&] { got = pipe.receive.receive(); });
            weft::wait_all_tasks_blocked();
            twin.close();
            weft::wait_all_tasks_blocked();
            check(closed == 2 && got == 0, "only those");
            pipe.send.send(4);
        });
        check(got == 4, "the other one goes on");

        auto sender = pipe.send.clone();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { sender.send(1); }, "woken");
            });
            weft::wait_all_tasks_blocked();
            sender.close();
        });
        check(!pipe.receive.try_receive(), "its item stayed unsent");
    });
}

TEST_CASE("MS19: a clone that is destroyed is closed, also while it is assigned to") {
    auto pipe = create_memory_object_stream<int>(1);
    auto other = create_memory_object_stream<int>(1);
    pipe.send = std::move(other.send);
    CHECK_THROWS_AS(pipe.receive.receive_nowait(), weft::end_of_stream);
    CHECK_THROWS_AS(other.send.send_nowait(1), weft::closed_resource_error);
    pipe.send.send_nowait(1);
    CHECK(other.receive.receive_nowait() == 1);
}

TEST_CASE("MS21: a clone for each producer; the consumers end when the last one is closed") {
    run_test([] {
        constexpr int producers = 4;
        constexpr int items = 200;
        for (double const size : {0.0, 1.0, 16.0, infinite}) {
            auto [send, receive] = create_memory_object_stream<int>(size);
            std::atomic<long> sum = 0;
            std::atomic<int> count = 0;
            weft::with_task_group([&](weft::task_group& group) {
                for (int number = 0; number < producers; ++number) {
                    group.start_soon([own = send.clone()]() mutable {
                        for (int item = 1; item <= items; ++item)
                            own.send(item);
                    });
                    group.start_soon([&sum, &count, own = receive.clone()]() mutable {
                        for (int const item : own) {
                            sum += item;
                            ++count;
                        }
                    });
                }
                send.close();
                receive.close();
            });
            check(count == producers * items, "each item once");
            check(sum == long(producers) * items * (items + 1) / 2, "each item as it was");
        }
    });
}

TEST_CASE("MS23: OS threads send, receive and close") {
    run_test({.seeds = {}}, [] {
        auto [send, receive] = create_memory_object_stream<int>(infinite);
        constexpr int items = 500;
        std::vector<std::thread> threads;
        for (int number = 0; number < 2; ++number)
            threads.emplace_back([own = send.clone()]() mutable {
                for (int item = 0; item < items; ++item)
                    own.send_nowait(item);
            });
        send.close();
        int count = 0;
        for ([[maybe_unused]] int const item : receive)
            ++count;
        check(count == 2 * items, "all of them");
        for (std::thread& each : threads)
            each.join();
    });
}

TEST_CASE("MS7: a buffer that grows keeps the order") {
    auto pipe = create_memory_object_stream<std::string>(infinite);
    int sent = 0;
    int received = 0;
    for (int round = 0; round < 100; ++round) {
        for (int item = 0; item < 150; ++item)
            pipe.send.send_nowait("an item that is not short: " + std::to_string(sent++));
        for (int item = 0; item < 50; ++item)
            REQUIRE(pipe.receive.receive_nowait() ==
                    "an item that is not short: " + std::to_string(received++));
    }
    CHECK(pipe.send.statistics().current_buffer_used == std::size_t(sent - received));
}

TEST_CASE("MS18, MS24: close() waits for nothing, twice is once, and what was sent before comes in order") {
    weft::test::run_test([] {
        auto pipe = create_memory_object_stream<int>(3);
        for (int item = 1; item <= 3; ++item)
            pipe.send.send_nowait(item);
        pipe.send.close();
        pipe.send.close();
        for (int item = 1; item <= 3; ++item)
            check(pipe.receive.receive() == item, "in the order of sending");
        pipe.receive.close();
        pipe.receive.close();
    });
}

TEST_CASE("X5: iteration ends where the items do; any other error leaves it") {
    run_test([] {
        auto pipe = create_memory_object_stream<int>(2);
        int seen = 0;
        check_throws<weft::closed_resource_error>(
            [&] {
                pipe.send.send(1);
                pipe.send.send(2);
                for ([[maybe_unused]] int const item : pipe.receive)
                    if (++seen == 2) pipe.receive.close();
            },
            "closed while it is iterated");
        check(seen == 2, "until then");
        auto other = create_memory_object_stream<int>(1);
        other.send.send(7);
        check(!weft::move_on_after(std::chrono::milliseconds(1),
                                   [&] {
                                       for (int const item : other.receive)
                                           seen += item;
                                   }),
              "a cancellation leaves it as well");
        check(seen == 9, "after the item that was there");
        other.send.close();
        for ([[maybe_unused]] int const item : other.receive)
            check(false, "nothing is left");
    });
}

TEST_SUITE_END();
