#include "faults.hpp"
#include "support/receive_all.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/tcp.hpp>
#include <weft/streams/udp.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <set>
#include <string>
#include <system_error>

#include <poll.h>

TEST_SUITE_BEGIN("network.transfer");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::faults;
using weft::test::kernel_setting;
using weft::test::port_text;
using weft::test::receive_all;
using weft::test::run_over_network;
using weft::test::slow_link;

struct server_link {
    weft::multi_listener<weft::socket_stream> listener =
        weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t port = listener.extra(weft::socket_attribute::local_port);

    struct ends {
        weft::socket_stream here, there;
    };
    ends connect() {
        auto& accepting = dynamic_cast<weft::socket_listener<weft::socket_stream>&>(
            *listener.listeners().front());
        auto here = weft::connect_tcp("127.0.0.1", port);
        return {std::move(here), accepting.accept()};
    }

    // What goes to the server, and what comes from it.
    std::string rules(std::string const& fate) const {
        return "tcp dport " + std::to_string(port) + " " + fate + "\ntcp sport " +
               std::to_string(port) + " " + fate;
    }
};

std::string letters(std::size_t count, unsigned seed) {
    std::string text(count, '\0');
    for (char& letter : text)
        letter = char('a' + (seed = seed * 1664525 + 1013904223) % 26);
    return text;
}

// 0: it did not break. Otherwise what the kernel said.
template <class Call> int cause_of_breaking(Call const& call) {
    try {
        call();
    } catch (weft::broken_resource_error const& failure) {
        try {
            std::rethrow_if_nested(failure);
        } catch (std::system_error const& cause) {
            return cause.code().value();
        }
        return -1;
    }
    return 0;
}

// The kernel may answer a moment after send() has returned. Takes nothing away.
void wait_for_error(weft::connected_udp_socket const& on) {
    ::pollfd watched{on.extra(weft::socket_attribute::raw_socket), 0, 0};
    while (::poll(&watched, 1, 0) == 0)
        weft::sleep(1ms);
}

bool breaks_sending(weft::socket_stream& to) {
    int const cause = cause_of_breaking([&to] { to.send("x"); });
    return cause == EPIPE || cause == ECONNRESET;
}

} // namespace

TEST_CASE("KS11: much in both directions, though every tenth packet is lost") {
    run_over_network(
        [] {
            server_link network;
            server_link::ends pair = network.connect();
            faults const lossy(network.rules("numgen inc mod 10 < 1 drop"));
            std::string const there = letters(1'500'000, 1);
            std::string const back = letters(1'500'000, 2);
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { pair.here.send(there), pair.here.send_eof(); });
                group.start_soon([&] { pair.there.send(back), pair.there.send_eof(); });
                group.start_soon([&] { check(receive_all(pair.here) == back, "as it was"); });
                check(receive_all(pair.there) == there, "as it was");
            });
        },
        {2});
}

TEST_CASE("KS2: a reset from the network breaks the stream, and only that one") {
    run_over_network([] {
        server_link network;
        server_link::ends pair = network.connect();
        {
            faults const cut("tcp dport " + std::to_string(network.port) +
                             " reject with tcp reset");
            pair.here.send("hello");
            check(cause_of_breaking([&] { pair.here.receive(); }) == ECONNRESET, "reset");
            check(cause_of_breaking([&] { pair.here.receive(); }) == ECONNRESET, "and stays so");
            check(breaks_sending(pair.here), "in both directions");
        }
        server_link::ends other = network.connect();
        other.here.send("hello");
        check(other.there.receive() == "hello", "the others go on");
        check(!weft::move_on_after(10ms, [&] { pair.there.receive(); }),
              "the other end has heard nothing");
    });
}

TEST_CASE("KS2: a peer that vanished breaks the stream when the kernel gives up") {
    kernel_setting const retries("ipv4/tcp_retries2", 3);
    run_over_network(
        [] {
            server_link network;
            server_link::ends pair = network.connect();
            faults const lost(network.rules("drop"));
            pair.here.send("hello");
            check(cause_of_breaking([&] { pair.here.receive(); }) == ETIMEDOUT, "a timeout");
            check(breaks_sending(pair.here), "in both directions");
        },
        {2});
}

TEST_CASE("KS4, M3: cancelled while the network is down, a stream goes on when it is back") {
    run_over_network([] {
        server_link network;
        server_link::ends pair = network.connect();
        std::string const much = letters(20'000'000, 3); // more than the kernel takes
        {
            faults const lost(network.rules("drop"));
            check(!weft::move_on_after(50ms, [&] { pair.here.send(much); }), "nobody takes it");
            check(!weft::move_on_after(10ms, [&] { pair.here.receive(); }), "nobody says anything");
        }
        pair.there.send("hello");
        check(pair.here.receive() == "hello", "it receives");
        pair.here.send_eof();
        std::string const come = receive_all(pair.there);
        check(!come.empty() && much.starts_with(come), "a beginning of what was sent");
    });
}

TEST_CASE("KS3: over a slow link a sender waits for it, and nobody else does") {
    run_over_network(
        [] {
            server_link network;
            server_link::ends pair = network.connect();
            slow_link const slow("20mbit");
            std::string const much = letters(6'000'000, 4); // 2.4 seconds
            int ticks = 0;
            weft::time_point const begin = weft::current_time();
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { pair.here.send(much), pair.here.send_eof(); });
                group.start_soon([&] {
                    for (;; ++ticks)
                        weft::sleep(1ms);
                });
                check(receive_all(pair.there) == much, "as it was");
                group.cancel("all of it has come");
            });
            weft::duration const took = weft::current_time() - begin;
            check(took > 1s, "the link is slow");
            check(ticks > 100, "others go on meanwhile");
        },
        {1, 2});
}

TEST_CASE("KS4: a send over a slow link can be cut short by a deadline") {
    run_over_network([] {
        server_link network;
        server_link::ends pair = network.connect();
        slow_link const slow("8mbit");
        std::string const much = letters(20'000'000, 5); // 20 seconds
        weft::time_point const begin = weft::current_time();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { receive_all(pair.there); });
            check_throws<weft::timeout_error>(
                [&] { weft::fail_after(100ms, [&] { pair.here.send(much); }); }, "too slow");
            group.cancel("enough");
        });
        check(weft::current_time() - begin < 10s, "in time");
    });
}

TEST_CASE("KD4: of the datagrams that get through each is whole, and comes once") {
    run_over_network([] {
        auto receiver = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto sender = weft::create_connected_udp_socket(
            "127.0.0.1", receiver.extra(weft::socket_attribute::local_port));
        std::set<std::string> sent, come;
        {
            faults const lossy("udp dport " + port_text(receiver) +
                               " numgen random mod 100 < 30 drop");
            for (unsigned each = 0; each < 100; ++each) {
                std::string const data = std::to_string(each) + letters(900, each);
                sent.insert(data);
                sender.send(data);
            }
        }
        sender.send("the end");
        for (;;) {
            weft::bytes const data = receiver.receive().data;
            if (data == "the end") break;
            check(sent.contains(data), "as it was sent");
            check(come.insert(data).second, "once");
        }
        check(come.size() < sent.size(), "some were lost");
    });
}

TEST_CASE("KD6: what ICMP says breaks one call of a connected socket, with the cause") {
    struct message {
        char const* host;
        char const* type;
        int error;
    };
    for (message const& each : {message{"127.0.0.1", "icmp type port-unreachable", ECONNREFUSED},
                                message{"127.0.0.1", "icmp type prot-unreachable", ENOPROTOOPT},
                                message{"127.0.0.1", "icmp type admin-prohibited", EHOSTUNREACH},
                                message{"::1", "icmpv6 type admin-prohibited", EACCES}})
        run_over_network([&each] {
            auto receiver = weft::create_udp_socket({.local_host = each.host});
            auto sender = weft::create_connected_udp_socket(
                each.host, receiver.extra(weft::socket_attribute::local_port));
            {
                faults const refused("udp dport " + port_text(receiver) + " reject with " +
                                     each.type);
                sender.send("lost");
                check(cause_of_breaking([&] { sender.receive(); }) == each.error, each.type);
                sender.send("lost as well");
                wait_for_error(sender);
                check(cause_of_breaking([&] { sender.send("unsent"); }) == each.error, "sending");
            }
            sender.send("hello");
            check(receiver.receive().data == "hello", "it goes on");
        });
}

TEST_SUITE_END();
