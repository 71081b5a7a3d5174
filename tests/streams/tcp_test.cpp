#include <weft/streams/tcp.hpp>

#include "deserted_port.hpp"
#include "sockets.hpp"
#include "support/child_process.hpp"
#include "support/few_descriptors.hpp"
#include "support/open_descriptors.hpp"
#include "support/traced_child.hpp"

#include <weft/io/resolver.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/streams/connectable.hpp>
#include <weft/streams/udp.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

TEST_SUITE_BEGIN("streams.tcp");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::deserted_port;
using weft::test::open_descriptors;
using weft::test::port_of;
using weft::test::run_with_sockets;

using tcp_listener = weft::multi_listener<weft::socket_stream>;
using one_listener = weft::socket_listener<weft::socket_stream>;

one_listener& first_of(tcp_listener const& listener) {
    return dynamic_cast<one_listener&>(*listener.listeners().front());
}

int option_of(weft::typed_attribute_provider const& socket, int level, int option) {
    int value = -1;
    ::socklen_t length = sizeof value;
    ::getsockopt(socket.extra(weft::socket_attribute::raw_socket), level, option, &value, &length);
    return value;
}

// How many connections wait for accept() at most: of a listener that is what this field means.
unsigned backlog_of(weft::typed_attribute_provider const& listener) {
    ::tcp_info info{};
    ::socklen_t length = sizeof info;
    ::getsockopt(listener.extra(weft::socket_attribute::raw_socket), IPPROTO_TCP, TCP_INFO, &info, &length);
    return info.tcpi_sacked;
}

bool has_ipv6_loopback() {
    try {
        weft::create_tcp_listener({.local_host = "::1"});
        return true;
    } catch (std::system_error const&) { // a container without
        return false;
    }
}

// strace lets its first socket(2) fail.
weft::test::child_program const listens_anywhere("listens anywhere", [] {
    weft::run({.workers = 1}, [] {
        try {
            auto const listener = weft::create_tcp_listener();
            std::printf("%zu listeners\n", listener.listeners().size());
        } catch (std::system_error const& failure) {
            std::puts(failure.what());
        }
    });
});

} // namespace

TEST_CASE("KC5: all attempts failed: connection_failed, with every cause in a group") {
    run_with_sockets([] {
        deserted_port const nobody;
        std::uint16_t const port = nobody.number();
        bool refused = false;
        try {
            weft::connect_tcp("127.0.0.1", port);
        } catch (weft::connection_failed const& failure) {
            refused = failure.code() == std::errc::connection_refused;
            std::string const text = failure.what();
            check(text.find("127.0.0.1 port " + std::to_string(port)) != text.npos, text);
            try {
                std::rethrow_if_nested(failure);
            } catch (weft::exception_group const& causes) {
                check(causes.exceptions().size() == 1, "one attempt");
                check(causes.contains<std::system_error>(), "its error");
            }
        }
        check(refused, "nobody listens");
        check_throws<weft::connection_failed>([&] { weft::connect_tcp("localhost", port); },
                                              "by name");
    });
}

TEST_CASE("E5: outside of a run the error names connect_tcp(), not one of the calls in it") {
    CHECK_THROWS_WITH_AS(weft::connect_tcp("127.0.0.1", 1), doctest::Contains("connect_tcp needs a task"),
                         weft::no_event_loop_error);
}

TEST_CASE("KN4: a name that does not resolve says so, unchanged") {
    run_with_sockets([] {
        bool unresolved = false;
        try {
            weft::connect_tcp("no-such-host.invalid", 80);
        } catch (std::system_error const& failure) {
            unresolved = failure.code().category() == weft::resolver_category();
            std::string const text = failure.what();
            check(text.find("cannot resolve 'no-such-host.invalid'") != text.npos, text);
        }
        check(unresolved, "an error of the resolver");
        check_throws<std::invalid_argument>([] { weft::connect_tcp("", 80); }, "no host");
        check_throws<std::invalid_argument>(
            [] { weft::connect_tcp("127.0.0.1", 80, {.local_port = 1}); }, "a port of no host");
    });
}

TEST_CASE("KC1: an address in numbers is tried once, and nobody is asked for it") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        deserted_port const nobody;
        unsigned const threads = weft::test::count_threads();
        weft::connect_tcp("127.0.0.1", port_of(listener));
        for (char const* const host : {"127.0.0.1", "::1"}) {
            std::size_t attempts = 0;
            try {
                weft::connect_tcp(host, nobody.number());
            } catch (weft::connection_failed const& failure) {
                try {
                    std::rethrow_if_nested(failure);
                } catch (weft::exception_group const& causes) {
                    attempts = causes.exceptions().size();
                }
            }
            check(attempts == 1, host);
        }
        check(weft::test::count_threads() <= threads, "no thread that looks anything up");
    });
}

TEST_CASE("KN7: where a host is expected, an address may stand") {
    run_with_sockets([] {
        auto const loopback = weft::ip_address::parse("127.0.0.1");
        auto listener = weft::create_tcp_listener({.local_host = loopback});
        auto const stream =
            weft::connect_tcp(loopback, port_of(listener), {.local_host = loopback});
        check(stream.extra(weft::socket_attribute::remote_address).ip() == loopback, "it");
        check(weft::getaddrinfo(loopback, "80").front().address.ip() == loopback, "resolved");
        auto datagrams = weft::create_udp_socket({.local_host = loopback});
        datagrams.sendto("x", loopback, port_of(datagrams));
        check(datagrams.receive().data == "x", "sent");
        auto link_local = weft::ip_address::parse("fe80::1%1");
        check(weft::getaddrinfo(link_local, "80").front().address.ip() == link_local, "its scope");
    });
}

TEST_CASE("KC5: a port out of range is refused wherever one is given, and is not another port") {
    run_with_sockets([] {
        auto datagrams = weft::create_udp_socket({.family = AF_INET});
        for (int const number : {-1, 65536, 65536 + 80}) {
            check_throws<std::invalid_argument>([&] { weft::connect_tcp("localhost", number); },
                                                "");
            check_throws<std::invalid_argument>(
                [&] { weft::connect_tcp("::1", 80, {.local_host = "::1", .local_port = number}); },
                "from");
            check_throws<std::invalid_argument>(
                [&] { weft::create_tcp_listener({.local_port = number}); }, "listening");
            check_throws<std::invalid_argument>(
                [&] { weft::create_udp_socket({.family = AF_INET, .local_port = number}); }, "UDP");
            check_throws<std::invalid_argument>(
                [&] { weft::create_connected_udp_socket("127.0.0.1", number); }, "connected UDP");
            check_throws<std::invalid_argument>([&] { datagrams.sendto("x", "127.0.0.1", number); },
                                                "sending");
            check_throws<std::invalid_argument>([&] { weft::as_connectable("localhost", number); },
                                                "connectable");
        }
        check_throws<weft::connection_failed>([] { weft::connect_tcp("127.0.0.1", 0); }, "nobody");
    });
}

TEST_CASE("KC2, KC3: a name with several addresses finds the one that answers") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve([](weft::socket_stream) {}, &group); });
            for (weft::duration const delay : {0ns, weft::duration(250ms)}) {
                auto stream = weft::connect_tcp("localhost", port_of(listener),
                                                {.happy_eyeballs_delay = delay});
                check(stream.extra(weft::socket_attribute::remote_port) == port_of(listener), "it");
            }
            group.cancel();
        });
    });
}

TEST_CASE("KC3: before the next attempt it is 250 ms, where nothing else is said") {
    CHECK(weft::connect_options().happy_eyeballs_delay == 250ms);
}

TEST_CASE("KC6: a cancelled connect leaves nothing open") {
    run_with_sockets(
        [] {
            auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    scope.run([&] { weft::connect_tcp("127.0.0.1", port_of(listener)); });
                });
                scope.cancel();
            });
            weft::cancel_scope before;
            before.cancel();
            before.run([&] { weft::connect_tcp("127.0.0.1", port_of(listener)); });
            check(before.cancelled_caught(), "cancelled on entry");
        },
        30);
}

TEST_CASE("KC6: nor does one that is cancelled while its host is looked up") {
    std::ptrdiff_t const before = open_descriptors();
    for (unsigned const workers : {1u, 2u, 4u})
        for (int time = 0; time < 30; ++time)
            weft::run({.workers = workers}, [] {
                auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon([&] { weft::connect_tcp("localhost", port_of(listener)); });
                    group.cancel();
                });
            });
    while (open_descriptors() > before) // a look-up goes on beyond its run, and reads files
        std::this_thread::yield();
}

TEST_CASE("KC7: the local address and port are bound before connecting") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve([](weft::socket_stream) {}, &group); });
            auto stream = weft::connect_tcp("127.0.0.1", port_of(listener),
                                            {.local_host = "127.0.0.2"});
            check(stream.extra(weft::socket_attribute::local_address).ip().to_string() ==
                      "127.0.0.2",
                  "that address");
            deserted_port const own;
            auto const second = weft::connect_tcp(
                "127.0.0.1", port_of(listener), {.local_host = "127.0.0.3", .local_port = own.number()});
            check(second.extra(weft::socket_attribute::local_address).to_string() ==
                      "127.0.0.3:" + std::to_string(own.number()),
                  "that port, too");
            check_throws<weft::connection_failed>(
                [&] {
                    weft::connect_tcp("127.0.0.1", port_of(listener), {.local_host = "192.0.2.1"});
                },
                "an address of somebody else");
            group.cancel();
        });
    });
}

TEST_CASE("KL1, KL5: without host and family one socket listens for IPv4 and IPv6") {
    run_with_sockets([] {
        weft::multi_listener<weft::socket_stream> listener = weft::create_tcp_listener();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve([](weft::socket_stream) {}, &group); });
            weft::connect_tcp("127.0.0.1", port_of(listener));
            if (has_ipv6_loopback()) {
                check(listener.listeners().size() == 1, "one socket");
                weft::connect_tcp("::1", port_of(listener));
            }
            group.cancel();
        });
    });
}

TEST_CASE("KL1: who listens on an IPv6 address takes no IPv4 connections") {
    run_with_sockets([] {
        if (!has_ipv6_loopback()) return;
        deserted_port const nobody; // listens there for IPv4
        auto const listener = weft::create_tcp_listener({.local_host = "::", .local_port = nobody.number()});
        check(option_of(listener, IPPROTO_IPV6, IPV6_V6ONLY) == 1, "IPv6 only");
        weft::connect_tcp("::1", port_of(listener));
        check_throws<weft::connection_failed>([&] { weft::connect_tcp("127.0.0.1", port_of(listener)); },
                                              "refused");
        auto const both = weft::create_tcp_listener();
        check(option_of(both, IPPROTO_IPV6, IPV6_V6ONLY) == 0, "nothing given: not only");
    });
}

TEST_CASE("KL1: a want of descriptors is told, and not taken for a host without IPv6") {
    auto const listen = [](std::string const& error) {
        return weft::test::trace_child("listens anywhere", "-e trace=socket -e inject=socket:when=1:error=" + error);
    };
    auto const without_descriptors = listen("EMFILE");
    if (!without_descriptors.was_traced) {
        MESSAGE("not tried: no strace here");
        return;
    }
    INFO(without_descriptors.output);
    CHECK(weft::test::has(without_descriptors.output, "socket for [::]:0: Too many open files"));
    for (char const* const none_or_forbidden : {"EAFNOSUPPORT", "EACCES"}) {
        auto const without_ipv6 = listen(none_or_forbidden);
        INFO(without_ipv6.output);
        CHECK(weft::test::has(without_ipv6.output, " listeners"));
    }
}

TEST_CASE("KL1, KL4: several addresses share the port that the kernel chose for the first") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "localhost"});
        for (auto const& each : listener.listeners())
            check(port_of(*each) == port_of(listener), "one port");
        auto v4 = weft::create_tcp_listener({.family = AF_INET});
        check(v4.extra(weft::socket_attribute::family) == AF_INET, "family");
        check(v4.listeners().size() == 1, "no doublets");
    });
}

TEST_CASE("KL2: an address in use is refused, unless both sides share it") {
    run_with_sockets([] {
        auto first = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        bool in_use = false;
        try {
            weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = port_of(first)});
        } catch (std::system_error const& failure) {
            in_use = failure.code() == std::errc::address_in_use;
        }
        check(in_use, "EADDRINUSE");
        auto shared = weft::create_tcp_listener({.local_host = "127.0.0.1", .reuse_port = true});
        auto twin = weft::create_tcp_listener(
            {.local_host = "127.0.0.1", .local_port = port_of(shared), .reuse_port = true});
        check(port_of(shared) == port_of(twin), "shared");
        check_throws<std::system_error>(
            [] { weft::create_tcp_listener({.local_host = "192.0.2.1"}); }, "not ours");
    });
}

TEST_CASE("KL2: a port is listened on again although connections that came there have just ended") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        std::uint16_t const port = port_of(listener);
        check(option_of(listener, SOL_SOCKET, SO_REUSEADDR) == 1, "the option");
        auto client = weft::connect_tcp("127.0.0.1", port);
        first_of(listener).accept(); // and closes first, so the port is that of the connection for a minute
        check_throws<weft::end_of_stream>([&] { client.receive(); }, "closed");
        client.close();
        listener.close();
        auto const again = weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = port});
        weft::connect_tcp("127.0.0.1", port);
    });
}

TEST_CASE("KL2: the backlog is the one given, as far as the system allows") {
    unsigned most_of_system = 0;
    std::ifstream("/proc/sys/net/core/somaxconn") >> most_of_system;
    run_with_sockets([&] {
        auto const with = [](int backlog) {
            return backlog_of(weft::create_tcp_listener({.local_host = "127.0.0.1", .backlog = backlog}));
        };
        check(with(7) == 7, "a small one");
        check(with(1'000'000) == std::min(most_of_system, 65'536u), "a large one");
        check(backlog_of(weft::create_tcp_listener()) == std::min(most_of_system, 65'536u), "none given");
    });
}

TEST_CASE("X12: without a descriptor accept() says so, and the next one has the connection") {
#if defined(__SANITIZE_ADDRESS__)
    MESSAGE("not with UBSan: it looks at objects through a pipe, for which there is no descriptor");
    return;
#endif
    weft::test::run_test({.workers = {1}, .seeds = {}}, [] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        auto client = weft::connect_tcp("127.0.0.1", port_of(listener));
        client.send("x");
        bool told = false;
        try {
            weft::test::few_descriptors const none(0);
            first_of(listener).accept();
        } catch (std::system_error const& failure) {
            told = failure.code() == std::errc::too_many_files_open;
        }
        check(told, "EMFILE");
        check(first_of(listener).accept().receive() == "x", "it was not lost");
    });
}

TEST_CASE("KL7: a second accept() is refused") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { first_of(listener).accept(); });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { first_of(listener).accept(); }, "busy");
            weft::connect_tcp("127.0.0.1", port_of(listener));
        });
    });
}

TEST_CASE("KL13, KL7: of those who accept at the same time one may, and the others are refused") {
    constexpr int count = 8;
    run_with_sockets(
        [] {
            auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
            std::atomic<int> refused = 0;
            std::atomic<int> accepted = 0;
            weft::event all_but_one;
            weft::with_task_group([&](weft::task_group& group) {
                for (int each = 0; each < count; ++each)
                    group.start_soon([&] {
                        try {
                            first_of(listener).accept();
                            ++accepted;
                        } catch (weft::busy_resource_error const&) {
                            if (++refused == count - 1) all_but_one.set();
                        }
                    });
                all_but_one.wait();
                check(accepted == 0, "nobody has come");
                weft::connect_tcp("127.0.0.1", port_of(listener));
            });
            check(accepted == 1 && refused == count - 1, "one");
        },
        20);
}

TEST_CASE("KL13: several accept where several listeners share a port") {
    run_with_sockets([] {
        constexpr int clients = 60;
        std::vector<tcp_listener> listeners;
        listeners.push_back(
            weft::create_tcp_listener({.local_host = "127.0.0.1", .reuse_port = true}));
        std::uint16_t const port = port_of(listeners.front());
        for (int more = 0; more < 3; ++more)
            listeners.push_back(weft::create_tcp_listener(
                {.local_host = "127.0.0.1", .local_port = port, .reuse_port = true}));
        std::atomic<int> greeted = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (tcp_listener& each : listeners)
                group.start_soon([&] {
                    each.serve([&](weft::socket_stream client) {
                        client.send("hello");
                        ++greeted;
                    });
                });
            weft::with_task_group([&](weft::task_group& crowd) {
                for (int each = 0; each < clients; ++each)
                    crowd.start_soon([&] {
                        check(weft::connect_tcp("127.0.0.1", port).receive() == "hello", "greeted");
                    });
            });
            group.cancel();
        });
        check(greeted == clients, "each by one of them");
    });
}

TEST_CASE("KL8: close() ends accept() with closed_resource_error, now and later") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { first_of(listener).accept(); },
                                                          "during");
            });
            weft::wait_all_tasks_blocked();
            listener.close();
        });
        check_throws<weft::closed_resource_error>([&] { first_of(listener).accept(); }, "after");
    });
}

TEST_CASE("KL9: a cancelled accept() loses no connection") {
    run_with_sockets(
        [] {
            auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
            std::atomic<bool> accepted = false;
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    scope.run([&] {
                        first_of(listener).accept();
                        accepted = true;
                    });
                });
                group.start_soon([&] { weft::connect_tcp("127.0.0.1", port_of(listener)); });
                weft::lowlevel::checkpoint();
                scope.cancel();
            });
            if (!accepted) first_of(listener).accept();
        },
        50);
}

TEST_CASE("KL10: a connection that was reset before it is accepted harms nobody") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        auto early = weft::connect_tcp("127.0.0.1", port_of(listener));
        weft::test::close_with_reset(early);
        auto accepted = first_of(listener).accept();
        check_throws<weft::broken_resource_error>([&] { accepted.receive(); }, "reset");
        auto next = weft::connect_tcp("127.0.0.1", port_of(listener));
        next.send("fine");
        check(first_of(listener).accept().receive() == "fine", "the next one");
    });
}

TEST_CASE("KL11: a listener has no remote address") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        check_throws<weft::typed_attribute_lookup_error>(
            [&] { listener.extra(weft::socket_attribute::remote_address); }, "none");
        check(listener.extra(weft::socket_attribute::raw_socket) >= 0, "a descriptor");
    });
}

TEST_SUITE_END();
