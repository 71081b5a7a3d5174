#include <weft/streams/udp.hpp>

#include "injected_errors.hpp"
#include "sockets.hpp"
#include "support/child_process.hpp"

#include <weft/io/resolver.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

TEST_SUITE_BEGIN("streams.udp");

using weft::test::check;
using weft::test::check_throws;
using weft::test::port_of;
using weft::test::run_with_sockets;

namespace {

void send_to_itself(char const* when) {
    weft::run({.workers = 1}, [&] {
        auto socket = weft::create_udp_socket({.local_host = "127.0.0.1"});
        socket.sendto("here", "127.0.0.1", port_of(socket));
        std::printf("%s: %s\n", when, socket.receive().data.c_str());
    });
}

// strace lets every other of its calls fail. Sockets of their own each time: their registration makes an event,
// which is what tells who was told EAGAIN that there is something after all.
weft::test::child_program const disturbed("batches of datagrams", [] {
    weft::run({.workers = 1}, [] {
        for (int round = 0; round < 20; ++round) {
            auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
            auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
            std::vector<weft::bytes> const items{"one", std::to_string(round), "three"};
            check(client.send_many(items) == items.size(), "sent");
            std::vector<weft::datagram> const got = server.receive_many();
            check(got.size() == items.size(), "once");
            for (std::size_t place = 0; place < items.size(); ++place)
                check(got[place].data == items[place], "as it was");
        }
    });
    std::puts("all arrived");
});

struct sends_at_the_end {
    bool wanted = false;
    ~sends_at_the_end() {
        if (!wanted) return;
        send_to_itself("at the end");
        send_to_itself("and again");
        std::fflush(stdout);
    }
} at_the_end;

// Of loopback's addresses the one with the number of this process: a port that is free there stays so, whatever
// ports others, such as tests that run meanwhile, get at theirs.
std::string own_host() {
    int const number = ::getpid();
    return "127." + std::to_string(64 + (number >> 16)) + "." + std::to_string(number >> 8 & 255) + "." +
           std::to_string(number & 255);
}

weft::test::child_program const datagrams_at_the_end("datagrams in a static destructor", [] {
    at_the_end.wanted = true;
    send_to_itself("before");
});

} // namespace

TEST_CASE("E1: a static object's destructor may use datagrams, whatever is gone before it") {
    auto const end = weft::test::run_child("datagrams in a static destructor");
    CHECK(end.exit_code == 0);
    CHECK(end.says("at the end: here"));
    CHECK(end.says("and again: here"));
}

TEST_CASE("KD1: a family or a local host must be given; the local port counts without a host") {
    run_with_sockets([] {
        check_throws<std::invalid_argument>([] { weft::create_udp_socket(); }, "neither");
        auto any = weft::create_udp_socket({.family = AF_INET});
        check(port_of(any) != 0, "a free port");
        auto const everywhere = any.extra(weft::socket_attribute::local_address).ip();
        check(everywhere == weft::ip_address::any_v4(), "on every interface");
        check_throws<std::system_error>(
            [&] { weft::create_udp_socket({.family = AF_INET, .local_port = port_of(any)}); },
            "in use");
    });
}

TEST_CASE("KD1: a port is shared only where both sides say so") {
    run_with_sockets([] {
        auto first = weft::create_udp_socket({.local_host = "127.0.0.1", .reuse_port = true});
        std::uint16_t const port = port_of(first);
        auto second = weft::create_udp_socket(
            {.local_host = "127.0.0.1", .local_port = port, .reuse_port = true});
        check(port_of(second) == port, "shared");
        bool in_use = false;
        try {
            weft::create_udp_socket({.local_host = "127.0.0.1", .local_port = port});
        } catch (std::system_error const& failure) {
            in_use = failure.code() == std::errc::address_in_use;
        }
        check(in_use, "with who asks for it only");
    });
}

TEST_CASE("KS15: from_socket() takes UDP sockets, bound or connected, and leaves the rest alone") {
    run_with_sockets([] {
        weft::unique_fd fresh(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        check_throws<std::invalid_argument>([&] { weft::udp_socket::from_socket(fresh); }, "bound");
        check_throws<std::invalid_argument>([&] { weft::connected_udp_socket::from_socket(fresh); },
                                            "connected");
        weft::unique_fd stream(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        check_throws<std::invalid_argument>([&] { weft::udp_socket::from_socket(stream); }, "type");
        weft::unique_fd local(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        check_throws<std::invalid_argument>([&] { weft::udp_socket::from_socket(local); },
                                            "family");
        check(fresh && stream && local, "left alone");

        auto bound = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto peer = weft::create_connected_udp_socket("127.0.0.1", port_of(bound));
        weft::unique_fd bound_twin(::dup(bound.extra(weft::socket_attribute::raw_socket)));
        weft::unique_fd peer_twin(::dup(peer.extra(weft::socket_attribute::raw_socket)));
        auto receiver = weft::udp_socket::from_socket(bound_twin);
        auto sender = weft::connected_udp_socket::from_socket(peer_twin);
        check(!bound_twin && !peer_twin, "taken over");
        check(sender.extra(weft::socket_attribute::remote_port) == port_of(bound), "its peer");
        sender.send("by the twins");
        check(receiver.receive().data == "by the twins", "the same sockets");
    });
}

TEST_CASE("KD3: a destination may be a name, which is looked up") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto client = weft::create_udp_socket({.family = AF_INET});
        client.sendto("by name", "localhost", port_of(server));
        check(server.receive().data == "by name", "found");
        bool unknown = false;
        try {
            client.sendto("x", "no-such-host.invalid", 9);
        } catch (std::system_error const& failure) {
            unknown = failure.code().category() == weft::resolver_category();
        }
        check(unknown, "an error of the resolver");
    });
}

TEST_CASE("KD2: a connected socket may be bound, and hears its peer only") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        std::uint16_t free_port = 0;
        {
            auto gone = weft::create_udp_socket({.local_host = own_host()});
            free_port = port_of(gone);
        }
        auto client = weft::create_connected_udp_socket(
            "127.0.0.1", port_of(server), {.local_host = own_host(), .local_port = free_port});
        auto const here = client.extra(weft::socket_attribute::local_address);
        check(here.to_string() == own_host() + ":" + std::to_string(free_port), "bound");
        check(client.extra(weft::socket_attribute::remote_port) == port_of(server), "connected");
        auto stranger = weft::create_udp_socket({.local_host = "127.0.0.1"});
        stranger.sendto("from a stranger", own_host(), free_port);
        client.send("hello");
        weft::datagram const question = server.receive();
        check(question.address == here, "its sender");
        server.send({"from the peer", question.address});
        check(client.receive() == "from the peer", "and nothing before it");
        check_throws<std::system_error>(
            [&] {
                weft::create_connected_udp_socket("::1", port_of(server),
                                                  {.local_host = "127.0.0.2"});
            },
            "another family");
    });
}

TEST_CASE("KD3: datagrams arrive whole, the empty and the large ones too") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
        for (std::string const& data : {std::string("x"), std::string(), std::string(60000, 'y')}) {
            client.send(data);
            weft::datagram const got = server.receive();
            check(got.data == data, "as it was");
            server.send(got);
            check(client.receive() == data, "and back");
        }
        check_throws<std::system_error>([&] { client.send(std::string(70000, 'z')); }, "too large");
    });
}

TEST_CASE("KD5: close() wakes the receiver; a second receiver is refused") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { server.receive(); }, "woken");
            });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { server.receive(); }, "busy");
            server.close();
        });
        check_throws<weft::closed_resource_error>([&] { server.sendto("x", "127.0.0.1", 9); },
                                                  "later");
    });
}

TEST_CASE("KD5, KD3: iterating goes on over an empty datagram; close() ends it by an error, never quietly") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
        std::vector<weft::bytes> const sent{"one", "", "three"};
        std::vector<weft::bytes> from_anybody, from_the_peer;
        weft::event all_came;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>(
                    [&] {
                        for (weft::datagram const& item : server) {
                            from_anybody.push_back(item.data);
                            server.send(item);
                        }
                    },
                    "a socket without a peer");
            });
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>(
                    [&] {
                        for (weft::bytes const& item : client) {
                            from_the_peer.push_back(item);
                            if (from_the_peer == sent) all_came.set();
                        }
                    },
                    "a socket with one");
            });
            for (weft::bytes const& item : sent)
                client.send(item);
            all_came.wait();
            server.close();
            client.close();
        });
        check(from_anybody == sent && from_the_peer == sent, "all that came before, once");
    });
}

TEST_CASE("KD6: a refusal breaks one call, not the socket") {
    run_with_sockets([] {
        std::uint16_t port = 0;
        {
            auto gone = weft::create_udp_socket({.local_host = own_host()});
            port = port_of(gone);
        }
        auto client = weft::create_connected_udp_socket(own_host(), port);
        client.send("x");
        check_throws<weft::broken_resource_error>([&] { client.receive(); }, "refused");
        auto server = weft::create_udp_socket({.local_host = own_host(), .local_port = port});
        client.send("again");
        check(server.receive().data == "again", "now it gets through");
    });
}

TEST_CASE("KD3: a batch takes what is there, in order, the empty and the largest ones too") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
        std::vector<weft::bytes> const items{"one", "", weft::bytes(60'000, 'x'), "four"};
        check(client.send_many(items) == items.size(), "in one call");
        std::vector<weft::datagram> got = server.receive_many(3);
        check(got.size() == 3, "not more than asked for");
        got.push_back(server.receive());
        for (std::size_t place = 0; place < items.size(); ++place) {
            check(got[place].data == items[place], "as it was");
            check(got[place].address == client.extra(weft::socket_attribute::local_address),
                  "its sender");
        }
        check(server.send_many(got) == got.size(), "and back");
        std::size_t count = 0;
        while (count < items.size())
            for (weft::datagram const& item : client.receive_many()) {
                check(item.data == items[count++], "the same");
                check(item.address == client.extra(weft::socket_attribute::remote_address), "peer");
            }
    });
}

TEST_CASE("KD3: batches larger than one system call, and none at all") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
        check(client.send_many(std::span<weft::bytes const>()) == 0, "nothing to send");
        check_throws<std::invalid_argument>([&] { server.receive_many(0); }, "nothing wanted");
        std::vector<weft::bytes> items;
        for (int each = 0; each < 100; ++each)
            items.push_back(std::to_string(each));
        std::size_t received = 0;
        for (std::span<weft::bytes const> left = items; !left.empty();) {
            std::size_t const sent = client.send_many(left);
            check(sent > 0 && sent <= left.size(), "some of them");
            left = left.subspan(sent);
            for (std::size_t const before = received; received < before + sent;)
                for (weft::datagram const& item : server.receive_many(1000))
                    check(item.data == items[received++], "in order");
        }
    });
}

TEST_CASE("KD3: an error in a batch concerns its first datagram; what is before it is sent") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
        std::vector<weft::bytes> const items{"fine", weft::bytes(70'000, 'x'), "behind"};
        check(client.send_many(items) == 1, "the first one");
        check_throws<std::system_error>([&] { client.send_many(std::span(items).subspan(1)); },
                                        "too large");
        check(client.send_many(std::span(items).subspan(2)) == 1, "usable");
        check(server.receive().data == "fine" && server.receive().data == "behind", "both");
    });
}

TEST_CASE("KD3: batches whose calls are interrupted, or would wait, arrive whole and once") {
    weft::test::check_all_arrives_despite_errors("batches of datagrams", "recvmmsg,sendmmsg", 40);
}

TEST_CASE("KD5, M3: a batch is woken by close(), and cancelled it takes nothing") {
    run_with_sockets(
        [] {
            auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
            auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
            weft::cancel_scope scope;
            std::optional<std::vector<weft::datagram>> got;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { scope.run([&] { got = server.receive_many(); }); });
                group.start_soon([&] { client.send("x"); });
                scope.cancel();
            });
            if (!got) got = server.receive_many();
            check(got->size() == 1 && got->front().data == "x", "now or later");
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    check_throws<weft::closed_resource_error>([&] { server.receive_many(); }, "");
                });
                weft::wait_all_tasks_blocked();
                check_throws<weft::busy_resource_error>([&] { server.receive_many(); }, "busy");
                server.close();
            });
        },
        20);
}

TEST_CASE("KD7: when close() returns the port is free, also if a task was inside") {
    run_with_sockets(
        [] {
            auto socket = weft::create_udp_socket({.local_host = own_host()});
            std::uint16_t const port = port_of(socket);
            for (int again = 0; again < 10; ++again) {
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon([&] {
                        check_throws<weft::closed_resource_error>([&] { socket.receive(); }, "");
                    });
                    weft::wait_all_tasks_blocked();
                    socket.close();
                    auto const next =
                        weft::create_udp_socket({.local_host = own_host(), .local_port = port});
                });
                socket = weft::create_udp_socket({.local_host = own_host(), .local_port = port});
            }
        },
        5);
}

TEST_CASE("KD7: close() in a cancelled scope gives the port back all the same") {
    run_with_sockets([] {
        auto socket = weft::create_udp_socket({.local_host = own_host()});
        std::uint16_t const port = port_of(socket);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { socket.receive(); }, "woken");
            });
            weft::wait_all_tasks_blocked();
            weft::close_forcefully(socket);
            auto const next =
                weft::create_udp_socket({.local_host = own_host(), .local_port = port});
        });
    });
}

TEST_CASE("KD9, KN4: addresses that do not fit are errors, and nothing is left open") {
    run_with_sockets([] {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        check_throws<std::system_error>([&] { server.sendto("x", "::1", 9); }, "another family");
        check_throws<std::system_error>(
            [] { weft::create_udp_socket({.local_host = "203.0.113.1"}); }, "not our address");
    });
}

TEST_SUITE_END();
