#include <weft/streams/listener.hpp>

#include "sockets.hpp"

#include <weft/runtime/inspect.hpp>
#include <weft/streams/memory_network.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

// Servers that handle so many connections at a time and no more, and who waits for a place.

TEST_SUITE_BEGIN("streams.serve_places");

namespace {

using weft::socket_stream;
using weft::test::check;
using weft::test::check_throws;
using weft::test::connect_to;
using weft::test::echo_over_tcp;
using weft::test::listen;
using weft::test::port_of;
using weft::test::run_with_sockets;

// Two listeners as one, of sockets or of a network in memory, and how to connect to either.
struct two_sockets {
    using stream = socket_stream;
    std::unique_ptr<weft::listener<stream>> listen() {
        return std::make_unique<weft::multi_listener<stream>>(
            weft::create_tcp_listener({.local_host = "127.0.0.1"}));
    }
    stream connect(weft::typed_attribute_provider const& to) { return connect_to(to); }
};
struct two_in_memory {
    using stream = weft::memory_network_stream;
    std::unique_ptr<weft::listener<stream>> listen() {
        return std::make_unique<weft::memory_network_listener>(network.listen());
    }
    stream connect(weft::typed_attribute_provider const& to) {
        return network.connect(port_of(to));
    }
    weft::memory_network network;
};

template <class Kind, class Body> void with_two_listeners(Body const& body) {
    run_with_sockets([&body] {
        using stream = typename Kind::stream;
        Kind kind;
        std::vector<std::unique_ptr<weft::listener<stream>>> parts;
        parts.push_back(kind.listen());
        parts.push_back(kind.listen());
        weft::multi_listener<stream> both(std::move(parts));
        auto const connect = [&](std::size_t at) { return kind.connect(*both.listeners()[at]); };
        body(both, connect);
    });
}

void answer_all(weft::byte_stream& stream) {
    for (weft::bytes const& chunk : static_cast<weft::byte_receive_stream&>(stream))
        stream.send(chunk);
}

auto const serve_both_one_at_a_time = [](auto& both, auto const& connect) {
    std::atomic<int> now = 0;
    weft::with_task_group([&](weft::task_group& group) {
        auto server = group.create_task([&] {
            weft::serve(
                both,
                [&now](auto stream) {
                    check(++now == 1, "one at a time");
                    answer_all(stream);
                    --now;
                },
                {.max_connections = 1});
        });
        for (std::size_t const which : {0u, 0u, 1u, 1u, 0u}) { // the other one is silent
            auto client = connect(which);
            client.send("x");
            check(client.receive() == "x", "served");
        }
        weft::with_task_group([&](weft::task_group& clients) {
            for (std::size_t number = 0; number < 8; ++number)
                clients.start_soon([&connect, number] {
                    auto client = connect(number % 2);
                    client.send("y");
                    check(client.receive() == "y", "served in turns");
                });
        });
        server.cancel();
    });
};

auto const leave_what_waits_to_the_next_server = [](auto& both, auto const& connect) {
    for (std::size_t const busy : {0u, 1u}) {
        weft::with_task_group([&](weft::task_group& group) {
            auto const serve = [&both] {
                weft::serve(
                    both, [](auto stream) { answer_all(stream); }, {.max_connections = 1});
            };
            auto first = group.create_task(serve);
            auto inside = connect(busy);
            inside.send("x");
            check(inside.receive() == "x", "the place is taken");
            auto same = connect(busy);
            auto other = connect(1 - busy);
            weft::wait_all_tasks_blocked();
            first.cancel();
            weft::wait_all_tasks_blocked();
            inside.close();
            check_throws<weft::task_cancelled>([&] { first.wait(); }, "drained");
            auto next = group.create_task(serve);
            weft::with_task_group([&](weft::task_group& clients) { // in whatever order
                for (auto* const late : {&same, &other})
                    clients.start_soon([late] {
                        late->send("late");
                        check(late->receive() == "late", "served by the next");
                        late->close();
                    });
            });
            next.cancel();
        });
    }
};

// The place is never given back: the client stays.
auto const close_while_there_is_no_place = [](auto& both, auto const& connect) {
    weft::with_task_group([&](weft::task_group& group) {
        auto server = group.create_task([&] {
            weft::serve_options const impatient{
                .drain = weft::duration::zero(), .max_connections = 1, .on_stragglers = [](auto) {}};
            try {
                weft::serve(both, [](auto stream) { answer_all(stream); }, impatient);
            } catch (weft::exception_group const& failures) {
                return failures.contains<weft::closed_resource_error>();
            }
            return false;
        });
        auto inside = connect(0);
        inside.send("x");
        check(inside.receive() == "x", "the place is taken");
        auto waiting = connect(0);
        weft::wait_all_tasks_blocked();
        both.close();
        check(server.wait(), "over");
    });
};

// A listener that knows no places: has some connections from the beginning, and no more come.
class hands_out final : public weft::listener<weft::memory_network_stream> {
public:
    void add(weft::memory_network_stream stream) { streams_.push_back(std::move(stream)); }
    void close() override {}

protected:
    void serve_connections(weft::connection_handler<weft::memory_network_stream> const& handler,
                           weft::task_group& group) override {
        for (weft::memory_network_stream& each : streams_)
            handler.start(group, std::move(each));
    }

private:
    std::vector<weft::memory_network_stream> streams_;
};

} // namespace

TEST_CASE("serve() handles no more connections at a time than allowed") {
    run_with_sockets([] {
        auto listener = listen();
        std::atomic<int> now = 0;
        std::atomic<int> most = 0;
        weft::with_task_group([&](weft::task_group& group) {
            auto server = group.create_task([&] {
                weft::serve(
                    listener,
                    [&](socket_stream stream) {
                        int const count = ++now;
                        for (int seen = most;
                             seen < count && !most.compare_exchange_weak(seen, count);) {
                        }
                        stream.send(stream.receive());
                        --now;
                    },
                    {.max_connections = 2});
            });
            weft::with_task_group([&](weft::task_group& clients) {
                for (int number = 0; number < 6; ++number)
                    clients.start_soon([&] {
                        auto client = connect_to(listener);
                        client.send("x");
                        check(client.receive() == "x", "in the end");
                    });
            });
            server.cancel();
        });
        check(most <= 2, "never more than two");
        check_throws<std::invalid_argument>(
            [&] { weft::serve(listener, echo_over_tcp, {.max_connections = 0}); }, "none at all");
    });
}

TEST_CASE("KL13: two listeners that share one place are both served, whichever is silent") {
    with_two_listeners<two_sockets>(serve_both_one_at_a_time);
    with_two_listeners<two_in_memory>(serve_both_one_at_a_time);
}

TEST_CASE("KL9: who waits for a place when the server is cancelled is served by the next one") {
    with_two_listeners<two_sockets>(leave_what_waits_to_the_next_server);
    with_two_listeners<two_in_memory>(leave_what_waits_to_the_next_server);
}

TEST_CASE("KL12, KL9: closing a listener ends serve() also while it waits for a place") {
    with_two_listeners<two_sockets>(close_while_there_is_no_place);
    with_two_listeners<two_in_memory>(close_while_there_is_no_place);
}

TEST_CASE("KL9: what was accepted without a place is handled although the server is cancelled") {
    run_with_sockets([] {
        weft::memory_network network;
        auto [here, there] = network.make_pair();
        auto [also_here, also_there] = network.make_pair();
        hands_out listener;
        listener.add(std::move(there));
        listener.add(std::move(also_there));
        weft::with_task_group([&](weft::task_group& group) {
            auto server = group.create_task([&] {
                weft::serve(
                    listener, [](auto stream) { answer_all(stream); }, {.max_connections = 1});
            });
            here.send("x");
            check(here.receive() == "x", "the place is taken");
            weft::wait_all_tasks_blocked();
            server.cancel();
            also_here.send("y");
            check(also_here.receive() == "y", "while the server drains");
            here.close();
            also_here.close();
            check_throws<weft::task_cancelled>([&] { server.wait(); }, "drained");
        });
    });
}

TEST_SUITE_END();
