// With AddressSanitizer gcc 12 takes a virtual base for an array that is too short.
#if defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Warray-bounds"
#endif

#include "unix_sockets.hpp"

#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/streams/buffered.hpp>
#include <weft/streams/listener.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/text.hpp>
#include <weft/streams/udp.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>

TEST_SUITE_BEGIN("streams.closing");

namespace {

using weft::socket_stream;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_with_sockets;

auto listen() {
    return weft::create_tcp_listener({.local_host = "127.0.0.1"});
}

// Whoever is woken by close() owns what is being closed, and destroys it while close() goes on.
template <class Closable, class Wait> void destroy_while_closing(Closable made, Wait wait) {
    auto owned = std::make_unique<Closable>(std::move(made));
    Closable& closed = *owned;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([own = std::move(owned), &wait]() mutable {
            try {
                wait(*own);
                check(false, "it was closed");
            } catch (weft::closed_resource_error const&) {
            } catch (weft::exception_group const& failures) {
                check(failures.contains<weft::closed_resource_error>(), "closed");
            }
            own.reset();
        });
        weft::wait_all_tasks_blocked();
        closed.close();
    });
}

// With one worker, who waits in the first call is woken and has not run when the second is made.
template <class Closable, class Wait, class Call>
void check_closed_not_busy(Closable closed, Wait wait, Call call) {
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon(
            [&] { check_throws<weft::closed_resource_error>([&] { wait(closed); }, "woken"); });
        weft::wait_all_tasks_blocked();
        closed.close();
        check_throws<weft::closed_resource_error>([&] { call(closed); }, "closed before");
    });
}

struct both_ends {
    weft::memory_network_stream here;
    weft::memory_network_stream there;
    std::string receive() { return here.receive(); }
    void close() { here.close(); }
};

// One task calls, another is woken by that and destroys all there is while the call is still on its
// way out, with luck: seen by AddressSanitizer.
template <class Things, class Call, class Woken>
void destroy_by_who_is_woken(std::unique_ptr<Things> made, Call call, Woken woken) {
    Things& things = *made;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([own = std::move(made), &woken]() mutable {
            woken(*own);
            own.reset();
        });
        group.start_soon([&] { call(things); });
    });
}

// One task asks, another closes meanwhile, and what is opened then may get the number. For several workers.
template <class Socket, class Value>
void ask_while_it_is_closed(Socket socket, weft::typed_attribute<Value> const& attribute) {
    weft::attribute_map const known = socket.extra_attributes();
    auto const& ask = *known.find(attribute);
    Value const truth = ask();
    std::atomic<int> asked = 0;
    std::atomic<bool> told = false;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            try {
                for (;; ++asked)
                    check(ask() == truth, attribute.name());
            } catch (weft::closed_resource_error const&) {
                told = true;
            }
        });
        while (asked < 16) // keeps its worker, so the other one is at it on another
            std::this_thread::yield();
        socket.close();
        while (!told) {
            weft::unique_fd const other(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
            weft::lowlevel::checkpoint();
        }
    });
}

struct network_and_listener {
    weft::memory_network network;
    weft::memory_network_listener listener = network.listen(80);
};

} // namespace

TEST_CASE("M15, KS8: who is woken by close() may destroy what is being closed") {
    run_with_sockets([] {
        auto const receive = [](auto& from) { from.receive(); };
        auto const accept = [](auto& from) { from.accept(); };
        auto const serve = [](auto& from) { from.serve([](auto) {}); };
        destroy_while_closing(
            weft::create_udp_socket({.family = AF_INET, .local_host = "127.0.0.1"}), receive);
        auto listener = listen();
        auto client = weft::connect_tcp("127.0.0.1", weft::test::port_of(listener));
        destroy_while_closing(std::move(client), receive);
        destroy_while_closing(listen(), serve);
        std::vector<std::unique_ptr<weft::listener<socket_stream>>> several;
        for (int i = 0; i < 4; ++i)
            several.push_back(std::make_unique<weft::multi_listener<socket_stream>>(listen()));
        destroy_while_closing(weft::multi_listener<socket_stream>(std::move(several)), serve);
        weft::memory_network network;
        destroy_while_closing(network.listen(), accept);
        destroy_while_closing(network.listen(), serve);
        auto [here, there] = network.make_pair();
        destroy_while_closing(both_ends{std::move(here), std::move(there)}, receive);
    });
}

TEST_CASE("M15: who is woken by a call on the network in memory may destroy all of it") {
    auto const some_rounds = [] {
        weft::memory_network network({.capacity = 1});
        auto const connected = [&] {
            auto [here, there] = network.make_pair();
            return std::make_unique<both_ends>(both_ends{std::move(here), std::move(there)});
        };
        auto const receive = [](both_ends& ends) { ends.there.receive(); };
        for (int round = 0; round < 1000; ++round) {
            destroy_by_who_is_woken(
                connected(), [](both_ends& ends) { ends.here.send("x"); }, receive);
            destroy_by_who_is_woken(
                connected(), [](both_ends& ends) { ends.here.send_eof(); },
                [](both_ends& ends) {
                    check_throws<weft::end_of_stream>([&] { ends.there.receive(); }, "the end");
                });
            destroy_by_who_is_woken(
                connected(), [](both_ends& ends) { ends.here.reset(); },
                [](both_ends& ends) {
                    check_throws<weft::broken_resource_error>([&] { ends.there.receive(); },
                                                              "reset");
                });
            destroy_by_who_is_woken(connected(), receive,
                                    [](both_ends& ends) { ends.here.send("xx"); });
            destroy_by_who_is_woken(
                std::make_unique<network_and_listener>(),
                [](network_and_listener& things) { things.network.connect(80); },
                [](network_and_listener& things) { things.listener.accept(); });
        }
    };
    weft::test::run_test({.workers = {2, 4}, .seeds = {0}}, some_rounds);
}

TEST_CASE("A7: who asks a socket for its attributes while it is closed is told that, or the truth") {
    namespace attribute = weft::socket_attribute;
    weft::test::run_test({.workers = {2, 4}, .seeds = {}, .times = 20}, [] {
        auto listener = listen();
        ask_while_it_is_closed(weft::test::connect_to(listener), attribute::local_address);
        ask_while_it_is_closed(weft::create_udp_socket({.local_host = "127.0.0.1"}), attribute::local_address);
        ask_while_it_is_closed(listen(), attribute::local_address);
        ask_while_it_is_closed(weft::test::connect_unix_pair().here, attribute::peer_credentials);
    });
}

TEST_CASE("R4: what is closed is not busy, though those whom close() woke have not run yet") {
    weft::test::run_test([] {
        auto const receive = [](auto& from) { from.receive(); };
        auto const send = [](auto& to) { to.send("xx"); };
        auto const end = [](auto& to) { to.send_eof(); };
        auto const accept = [](auto& from) { from.accept(); };
        weft::memory_network network({.capacity = 1});
        std::vector<weft::memory_network_stream> others;
        auto const connected = [&] {
            auto [here, there] = network.make_pair();
            others.push_back(std::move(there));
            return std::move(here);
        };
        check_closed_not_busy(connected(), receive, receive);
        check_closed_not_busy(connected(), send, send);
        check_closed_not_busy(connected(), send, end);
        check_closed_not_busy(network.listen(), accept, accept);
        check_closed_not_busy(weft::text_receive_stream(connected()), receive, receive);
        check_closed_not_busy(weft::text_send_stream(connected()), send, send);
        check_closed_not_busy(weft::text_stream(connected()), receive, receive);
        check_closed_not_busy(weft::text_stream(connected()), send, send);
        check_closed_not_busy(weft::buffered_byte_receive_stream(connected()), receive, receive);
        check_closed_not_busy(weft::buffered_byte_stream(connected()), receive, receive);
        auto one = weft::create_memory_object_stream<weft::bytes>();
        check_closed_not_busy(weft::any_byte_receive_stream(std::move(one.receive)), receive,
                              receive);
        auto to = weft::create_memory_object_stream<weft::bytes>();
        auto from = weft::create_memory_object_stream<weft::bytes>();
        check_closed_not_busy(weft::any_byte_stream(weft::stapled_object_stream<weft::bytes>(
                                  std::move(to.send), std::move(from.receive))),
                              receive, receive);
    });
}

TEST_SUITE_END();
