#include <weft/streams/memory_network.hpp>

#include "support/receive_all.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

TEST_SUITE_BEGIN("streams.memory_network");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::receive_all;
using weft::test::run_test;

// The sizes and times in which a message arrives.
std::vector<std::pair<std::size_t, weft::duration>> arrivals(std::uint64_t seed) {
    std::vector<std::pair<std::size_t, weft::duration>> result;
    weft::test::run_sim(0, [&] {
        weft::memory_network network({.seed = seed, .most_delay = 10ms, .largest_piece = 50});
        auto [here, there] = network.make_pair();
        here.send(std::string(1000, 'x'));
        here.close();
        weft::time_point const start = weft::current_time();
        for (weft::bytes const& chunk : there)
            result.emplace_back(chunk.size(), weft::current_time() - start);
    });
    return result;
}

} // namespace

TEST_CASE("data is split and delayed by the seed, in order, and by the same seed in the same way") {
    auto const first = arrivals(1);
    CHECK(first.size() > 20);
    CHECK(first == arrivals(1));
    CHECK(first != arrivals(2));
    CHECK(first.back().second <= 10ms);
}

TEST_CASE("a delay takes virtual time, and nothing overtakes") {
    weft::test::explore(20, [] {
        weft::memory_network network({.least_delay = 1h, .most_delay = 2h});
        weft::time_point const start = weft::current_time();
        auto [here, there] = network.make_pair();
        here.send("one ");
        here.send("two ");
        here.send("three");
        here.send_eof();
        check(receive_all(there) == "one two three", "in order");
        weft::duration const passed = weft::current_time() - start;
        check(passed >= 1h && passed <= 2h, "within the limits");
    });
}

TEST_CASE("a server and its clients, with half-close") {
    run_test([] {
        weft::memory_network network({.largest_piece = 3});
        auto listener = network.listen();
        std::uint16_t const port = listener.extra(weft::socket_attribute::local_port);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                listener.serve([](weft::memory_network_stream stream) {
                    stream.send("you said " + receive_all(stream));
                });
            });
            weft::with_task_group([&](weft::task_group& clients) {
                for (int number = 0; number < 10; ++number)
                    clients.start_soon([&network, port, number] {
                        auto stream = network.connect(port);
                        check(stream.extra(weft::socket_attribute::remote_port) == port, "there");
                        stream.send(std::to_string(number));
                        stream.send_eof();
                        check(receive_all(stream) == "you said " + std::to_string(number), "echo");
                    });
            });
            group.cancel();
        });
    });
}

TEST_CASE("X11: a connection is the handler's, who may keep it") {
    run_test([] {
        weft::memory_network network;
        auto listener = network.listen(80);
        std::optional<weft::memory_network_stream> kept;
        weft::event is_kept;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                listener.serve([&](weft::memory_network_stream stream) {
                    kept.emplace(std::move(stream));
                    is_kept.set();
                });
            });
            auto client = network.connect(80);
            is_kept.wait();
            weft::wait_all_tasks_blocked(); // the handler has returned
            kept->send("still open");
            check(client.receive() == "still open", "nobody has closed it");
            group.cancel();
        });
    });
}

TEST_CASE("nobody listens, or not any more; a port is taken once") {
    run_test([] {
        weft::memory_network network;
        check_throws<weft::connection_failed>([&] { network.connect(80); }, "nobody");
        auto listener = network.listen(80);
        check_throws<std::system_error>([&] { network.listen(80); }, "taken");
        auto waiting = network.connect(80);
        weft::with_task_group([&](weft::task_group& group) {
            auto other = network.listen(81);
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { other.accept(); }, "woken");
            });
            weft::wait_all_tasks_blocked();
            other.close();
        });
        listener.close();
        check_throws<weft::broken_resource_error>([&] { waiting.receive(); }, "never accepted");
        check_throws<weft::connection_failed>([&] { network.connect(80); }, "closed");
        check_throws<weft::closed_resource_error>([&] { listener.accept(); }, "closed");
        network.listen(80);
    });
}

TEST_CASE("what is no port is refused; a free one is one that nobody listens on") {
    run_test({.workers = {1}, .seeds = {0}}, [] {
        weft::memory_network network;
        check_throws<std::invalid_argument>([&] { network.listen(70'000); }, "listening");
        check_throws<std::invalid_argument>([&] { network.connect(65'536); }, "connecting");
        std::vector<weft::memory_network_listener> listening;
        for (int port : {49'152, 49'153, 65'535})
            listening.push_back(network.listen(port));
        for (int more = 65'536 - 49'152 - 3; more != 0; --more)
            listening.push_back(network.listen());
        check_throws<std::system_error>([&] { network.listen(); }, "there are no more");
        listening.back().close();
        std::uint16_t const left = listening.back().extra(weft::socket_attribute::local_port);
        check(network.listen().extra(weft::socket_attribute::local_port) == left, "the one left");
    });
}

TEST_CASE("a reset breaks both ends and wakes those that wait") {
    run_test([] {
        weft::memory_network network({.capacity = 10});
        auto [here, there] = network.make_pair();
        weft::with_task_group([&, &one = here, &other = there](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::broken_resource_error>([&] { one.receive(); }, "a receiver");
            });
            group.start_soon([&] {
                check_throws<weft::broken_resource_error>([&] { one.send(std::string(99, 'x')); },
                                                          "a sender");
            });
            weft::wait_all_tasks_blocked();
            other.reset();
        });
        check_throws<weft::broken_resource_error>([&, &other = there] { other.receive(); },
                                                  "again");
        here.send_eof(); // KS5: nobody is there who could hear of it
        there.close();
        check_throws<weft::closed_resource_error>([&, &other = there] { other.send_eof(); }, "closed by us");
    });
}

TEST_CASE("connections break by chance, by the seed") {
    int broken = 0;
    for (std::uint64_t seed = 0; seed < 40; ++seed)
        weft::test::run_sim(0, [&] {
            weft::memory_network network({.seed = seed, .reset_probability = 0.5});
            auto [here, there] = network.make_pair();
            try {
                here.send("x");
            } catch (weft::broken_resource_error const&) {
                ++broken;
            }
        });
    CHECK(broken > 5);
    CHECK(broken < 35);
}

TEST_CASE("options that make no sense are refused") {
    using weft::memory_network;
    CHECK_THROWS_AS(memory_network({.least_delay = -1ns}), std::invalid_argument);
    CHECK_THROWS_AS(memory_network({.largest_piece = 0}), std::invalid_argument);
    CHECK_THROWS_AS(memory_network({.reset_probability = 2}), std::invalid_argument);
}

TEST_CASE("cancelled at every suspension point, nothing that was sent is lost") {
    unsigned const points = weft::test::cancel_at_every_suspension_point([](auto& at) {
        weft::memory_network network({.most_delay = 5ms, .largest_piece = 2});
        auto [here, there] = network.make_pair();
        weft::with_task_group([&, &to = here, &from = there](weft::task_group& group) {
            group.start_soon([&to] {
                to.send("0123456789");
                to.send_eof();
            });
            std::string got;
            at.run([&] {
                while (got.size() < 10)
                    got += from.receive();
            });
            got += receive_all(from);
            check(got == "0123456789", "all of it: " + got);
        });
    });
    CHECK(points >= 1);
}
