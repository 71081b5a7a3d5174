#include <weft/streams/memory.hpp>

#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

// That no item is lost and none is there twice, however it moves and whoever is cut short.

TEST_SUITE_BEGIN("streams.memory_items");

namespace {

using weft::create_memory_object_stream;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

// Whose move constructor may throw, so that it travels in a box; it counts how many there are.
struct fragile {
    explicit fragile(int number) : value(number) { ++alive; }
    fragile(fragile const& other) : value(other.value) { ++alive; }
    fragile(fragile&& other) noexcept(false) : value(other.value) { ++alive; }
    fragile& operator=(fragile&& other) noexcept(false) {
        value = other.value;
        return *this;
    }
    ~fragile() { --alive; }
    int value;
    inline static std::atomic<int> alive = 0;
};

} // namespace

TEST_CASE("MS22: items whose move may throw travel in a box, and none is left behind") {
    fragile::alive = 0;
    run_test([] {
        auto pipe = create_memory_object_stream<fragile>(1);
        pipe.send.send(fragile(1));
        fragile second(2);
        check(!pipe.send.try_send(second) && second.value == 2, "left alone");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pipe.send.send(fragile(3)); });
            weft::wait_all_tasks_blocked();
            check(pipe.receive.receive().value == 1, "the first");
            check(pipe.receive.receive().value == 3, "the next");
        });
        pipe.send.send(fragile(4)); // stays in the buffer
    });
    CHECK(fragile::alive == 0);
}

TEST_CASE("MS22: try_send() that sends nothing leaves the item where it is") {
    auto pipe = create_memory_object_stream<std::unique_ptr<int>>(0);
    auto item = std::make_unique<int>(3);
    CHECK_FALSE(pipe.send.try_send(item));
    REQUIRE(item);
    pipe.receive.close();
    CHECK_THROWS_AS(pipe.send.try_send(item), weft::broken_resource_error);
    CHECK(*item == 3);
}

TEST_CASE("MS22: try_send() takes items that cannot be assigned to, and leaves them where they are") {
    using entry = std::pair<std::string const, int>;
    auto pipe = create_memory_object_stream<entry>(1);
    entry first("a string that is too long for its own place", 1);
    entry const expected = first;
    CHECK(pipe.send.try_send(first));
    CHECK(pipe.receive.receive_nowait() == expected);
    entry second = expected;
    pipe.receive.close();
    CHECK_THROWS_AS(pipe.send.try_send(second), weft::broken_resource_error);
    CHECK(second == expected);
}

TEST_CASE("MS3, MS4: racing cancellations neither lose nor double an item") {
    run_test({.times = 5}, [] {
        for (double const size : {0.0, 1.0}) {
            auto [send, receive] = create_memory_object_stream<int>(size);
            constexpr int rounds = 100;
            std::atomic<int> sent = 0;
            std::atomic<int> received = 0;
            weft::with_task_group([&](weft::task_group& group) {
                for (int number = 0; number < 2; ++number) {
                    group.start_soon([&sent, own = send.clone()]() mutable {
                        for (int round = 0; round < rounds; ++round)
                            if (weft::move_on_after(std::chrono::microseconds(round % 7),
                                                    [&] { own.send(1); }))
                                ++sent;
                    });
                    group.start_soon([&received, own = receive.clone()]() mutable {
                        try {
                            for (;;)
                                if (weft::move_on_after(std::chrono::microseconds(3),
                                                        [&] { own.receive(); }))
                                    ++received;
                        } catch (weft::end_of_stream const&) { // the producers are done
                        }
                    });
                }
                send.close();
            });
            check(sent == received, "what was sent was received: " + std::to_string(sent) + ", " +
                                        std::to_string(received));
        }
    });
}

TEST_CASE("MS6: cancelled at every suspension point, receive() takes nothing") {
    weft::test::cancel_at_every_suspension_point([](weft::test::attempt& at) {
        auto pipe = create_memory_object_stream<int>(0);
        std::atomic<int> got = 0;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pipe.send.send(9); });
            at.run([&] { got = pipe.receive.receive(); });
            if (got == 0) got = pipe.receive.receive();
        });
        check(got == 9, "once, now or later");
    });
}

TEST_CASE("MS24: each producer's items come in the order of its sends, whoever sends in between") {
    run_test({.times = 3}, [] {
        constexpr int producers = 4;
        constexpr int items = 200;
        for (double const size : {0.0, 1.0, 16.0}) {
            auto [send, receive] = create_memory_object_stream<std::pair<int, int>>(size);
            weft::with_task_group([&](weft::task_group& group) {
                for (int number = 0; number < producers; ++number)
                    group.start_soon([number, own = send.clone()]() mutable {
                        for (int item = 0; item < items; ++item) {
                            std::pair<int, int> next{number, item};
                            if (item % 3 != 0 || !own.try_send(next)) own.send(next);
                        }
                    });
                send.close();
                std::vector<int> next(producers);
                for (auto const& [producer, item] : receive)
                    check(item == next[std::size_t(producer)]++, "the next one of its producer");
                check(next == std::vector<int>(producers, items), "all of them");
            });
        }
    });
}

TEST_CASE("MS14, MS15: clones closed under those who wait through them lose nothing") {
    fragile::alive = 0;
    run_test({.times = 20}, [] {
        for (double const size : {0.0, 2.0}) {
            auto [send, receive] = create_memory_object_stream<fragile>(size);
            std::atomic<int> sent = 0;
            std::atomic<int> received = 0;
            weft::with_task_group([&, &send = send, &receive = receive](weft::task_group& group) {
                for (int number = 0; number < 3; ++number) {
                    auto const to = std::make_shared<decltype(send.clone())>(send.clone());
                    auto const from = std::make_shared<decltype(receive.clone())>(receive.clone());
                    for (int task = 0; task < 2; ++task) { // two wait through one clone
                        group.start_soon([&sent, to] {
                            try {
                                for (;;) {
                                    to->send(fragile(1));
                                    ++sent;
                                }
                            } catch (weft::closed_resource_error const&) { // under us
                            }
                        });
                        group.start_soon([&received, from] {
                            try {
                                for (;;) {
                                    from->receive();
                                    ++received;
                                }
                            } catch (weft::closed_resource_error const&) { // under us
                            } catch (weft::end_of_stream const&) {         // nobody sends any more
                            }
                        });
                    }
                    group.start_soon([number, to, from] {
                        for (int time = 0; time < 10 + 7 * number; ++time)
                            weft::lowlevel::checkpoint();
                        if (number % 2 == 0) to->close();
                        from->close();
                        weft::lowlevel::checkpoint();
                        to->close();
                    });
                }
                send.close();
            });
            for ([[maybe_unused]] fragile const& left_in_the_buffer : receive)
                ++received;
            check(sent == received, "what was sent was received: " + std::to_string(sent) + ", " +
                                        std::to_string(received));
            auto const left = receive.statistics();
            check(left.tasks_waiting_send == 0 && left.tasks_waiting_receive == 0, "nobody waits");
        }
    });
    CHECK(fragile::alive == 0);
}

TEST_CASE("MS22: items of cancelled sends are destroyed with their senders, each once") {
    fragile::alive = 0;
    run_test({.times = 5}, [] {
        auto [send, receive] = create_memory_object_stream<fragile>(1);
        std::atomic<long> sent = 0;
        std::atomic<long> received = 0;
        weft::with_task_group([&, &send = send, &receive = receive](weft::task_group& group) {
            for (int number = 0; number < 4; ++number)
                group.start_soon([&sent, number, own = send.clone()]() mutable {
                    for (int item = 1; item <= 50; ++item)
                        if (weft::move_on_after(std::chrono::microseconds((item * number) % 5),
                                                [&] { own.send(fragile(item)); }))
                            sent += item;
                });
            send.close();
            for (int number = 0; number < 2; ++number)
                group.start_soon([&received, own = receive.clone()]() mutable {
                    for (fragile const& item : own) {
                        received += item.value;
                        weft::lowlevel::checkpoint();
                    }
                });
            receive.close();
        });
        check(sent == received, "what was sent was received, as it was");
        check(fragile::alive == 0, "and all are gone");
    });
}

TEST_CASE("MS23: OS threads close what tasks wait through") {
    run_test({.seeds = {}, .times = 30}, [] {
        auto wait_to_receive = create_memory_object_stream<int>(0);
        auto wait_to_send = create_memory_object_stream<int>(0);
        auto ended = create_memory_object_stream<int>(0);
        std::thread closer([&] {
            wait_to_receive.receive.close();
            wait_to_send.send.close();
            static_cast<void>(ended.receive.statistics());
            ended.send.close();
        });
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>(
                    [&] { wait_to_receive.receive.receive(); }, "the receiving end");
            });
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { wait_to_send.send.send(1); },
                                                          "the sending end");
            });
            check_throws<weft::end_of_stream>([&] { ended.receive.receive(); },
                                              "the last sender's");
        });
        closer.join();
    });
}

TEST_CASE("MS25: items that nobody receives are destroyed with the stream or with their sender") {
    auto const item = std::make_shared<int>(1);
    weft::test::run_test([&] {
        auto pipe = create_memory_object_stream<std::shared_ptr<int>>(1);
        pipe.send.send_nowait(item);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pipe.send.send(item); });
            weft::wait_all_tasks_blocked();
            check(item.use_count() == 3, "one in the buffer, one with the sender");
            group.cancel();
        });
        check(item.use_count() == 2, "the sender's is gone");
    });
    CHECK(item.use_count() == 1);
}

namespace {

// Three channels with those who wait at them, and their ends in the hands of somebody else.
struct awaited_streams {
    using item = std::shared_ptr<int>;
    std::optional<weft::memory_object_stream<item>> idle = create_memory_object_stream<item>(1);
    std::optional<weft::memory_object_stream<item>> taken = create_memory_object_stream<item>(0);
    std::optional<weft::memory_object_stream<item>> full = create_memory_object_stream<item>(1);
    std::optional<weft::memory_object_receive_stream<item>> other_end = idle->receive.clone();

    void wait_at_all(weft::task_group& group, item const& what) {
        full->send.send_nowait(what);
        group.start_soon([&from = idle->receive] { from.receive(); });
        group.start_soon([&from = *other_end] { from.receive(); });
        group.start_soon([&from = taken->receive] { from.receive(); });
        group.start_soon([&to = full->send, what] { to.send(what); });
        weft::wait_all_tasks_blocked();
    }
    void destroy_all() {
        other_end.reset();
        idle.reset();
        taken.reset();
        full.reset();
    }
};

} // namespace

TEST_CASE("M15, MS14: those whose waits were cancelled leave alone a stream that was destroyed since") {
    auto const item = std::make_shared<int>(1);
    weft::test::run_test({.times = 10}, [&] {
        weft::with_task_group([&](weft::task_group& group) {
            awaited_streams streams;
            streams.wait_at_all(group, item);
            group.cancel();
            streams.destroy_all();
        });
        check(item.use_count() == 1, "what was sent is gone");
    });
}

TEST_CASE("M15, MS3: those who were passed over leave alone a stream that was destroyed since") {
    auto const item = std::make_shared<int>(1);
    weft::test::run_test({.times = 10}, [&] {
        weft::with_task_group([&](weft::task_group& group) {
            awaited_streams streams;
            streams.wait_at_all(group, item);
            group.cancel();
            streams.idle->send.send_nowait(item);
            check_throws<weft::would_block>([&] { streams.taken->send.send_nowait(item); }, "nobody takes it");
            check(streams.full->receive.receive_nowait() == item, "it was there");
            check_throws<weft::would_block>([&] { streams.full->receive.receive_nowait(); }, "the next is gone");
            streams.destroy_all();
            check(item.use_count() <= 3, "the buffers are gone"); // ours, and where it was sent from
        });
        check(item.use_count() == 1, "what was sent is gone");
    });
}

TEST_CASE("MS4: cancelled at every suspension point, an item is sent once or not at all") {
    unsigned const points = weft::test::cancel_at_every_suspension_point([](weft::test::attempt& at) {
        auto pipe = create_memory_object_stream<int>(0);
        int received = 0;
        bool sent = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::lowlevel::checkpoint();
                try {
                    for (;;) {
                        pipe.receive.receive();
                        ++received;
                    }
                } catch (weft::end_of_stream const&) { // the sender has given up or is done
                }
            });
            at.run([&] {
                pipe.send.send(9);
                sent = true;
                weft::lowlevel::checkpoint();
            });
            pipe.send.close();
        });
        check(received == (sent ? 1 : 0), "received if and only if send() returned");
    });
    CHECK(points >= 2);
}

TEST_SUITE_END();
