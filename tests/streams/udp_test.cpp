#include <weft/streams/udp.hpp>

#include "sockets.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <system_error>

TEST_SUITE_BEGIN("streams.udp");

using weft::test::check;
using weft::test::check_throws;
using weft::test::port_of;
using weft::test::run_with_sockets;

TEST_CASE("KD1: a family or a local host must be given; the local port counts without a host") {
    run_with_sockets([] {
        check_throws<std::invalid_argument>([] { weft::create_udp_socket(); }, "neither");
        auto any = weft::create_udp_socket({.family = AF_INET});
        check(port_of(any) != 0, "a free port");
        check_throws<std::system_error>(
            [&] { weft::create_udp_socket({.family = AF_INET, .local_port = port_of(any)}); },
            "in use");
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

TEST_CASE("KD6: a refusal breaks one call, not the socket") {
    run_with_sockets([] {
        std::uint16_t port = 0;
        {
            auto gone = weft::create_udp_socket({.local_host = "127.0.0.1"});
            port = port_of(gone);
        }
        auto client = weft::create_connected_udp_socket("127.0.0.1", port);
        client.send("x");
        check_throws<weft::broken_resource_error>([&] { client.receive(); }, "refused");
        auto server =
            weft::create_udp_socket({.local_host = "127.0.0.1", .local_port = port});
        client.send("again");
        check(server.receive().data == "again", "now it gets through");
    });
}

TEST_SUITE_END();
