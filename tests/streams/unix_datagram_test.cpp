#include <weft/streams/unix_socket.hpp>

#include "unix_sockets.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>

#include <doctest/doctest.h>

#include <optional>
#include <stdexcept>
#include <string>

TEST_SUITE_BEGIN("streams.unix_datagram");

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::error_of;
using weft::test::run_with_sockets;
using weft::test::socket_directory;

constexpr int more_than_a_queue = 2000; // net.unix.max_dgram_qlen is 10 or 512

// All arrive, although the queue is full most of the time.
template <class Send> void send_and_receive_many(weft::unix_datagram_socket& server, Send send) {
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&send] {
            for (int each = 0; each < more_than_a_queue; ++each)
                send(std::to_string(each));
        });
        weft::wait_all_tasks_blocked(); // the queue is full now
        for (int each = 0; each < more_than_a_queue; ++each)
            check(server.receive().data == std::to_string(each), "in order, none is missing");
    });
}

} // namespace

TEST_CASE("KD8: datagrams between paths, the empty and the large ones too, and back") {
    run_with_sockets([] {
        socket_directory const place;
        auto server = weft::create_unix_datagram_socket({.local_path = place / "server"});
        auto client = weft::create_connected_unix_datagram_socket(
            place / "server", {.local_path = place / "client"});
        for (std::string const& data :
             {std::string("x"), std::string(), std::string(60'000, 'y'), std::string(150'000, 'z')}) {
            client.send(data);
            weft::datagram const got = server.receive();
            check(got.data == data, "as it was");
            check(got.address.path() == (place / "client").as_posix(), "from the client");
            server.send(got);
            check(client.receive() == data, "and back");
        }
        check(client.extra(weft::socket_attribute::remote_address).path() ==
                  (place / "server").as_posix(),
              "its peer");
        check(error_of([&] { client.send(std::string(10'000'000, 'x')); }) == EMSGSIZE, "too much");
    });
}

TEST_CASE("KD8: a sender without a name shows as an empty path, and cannot be answered") {
    run_with_sockets([] {
        socket_directory const place;
        auto server = weft::create_unix_datagram_socket({.local_path = place / "server"});
        auto nameless = weft::create_unix_datagram_socket();
        nameless.sendto("hello", place / "server");
        weft::datagram const got = server.receive();
        check(got.address.family() == AF_UNIX && got.address.path().empty(), "no name");
        check_throws<std::invalid_argument>([&] { server.send(got); }, "nowhere to send it to");
        check_throws<std::invalid_argument>(
            [&] { server.send({"x", {weft::ip_address(), 80}}); }, "another kind of address");
    });
}

TEST_CASE("KD8: sending to a full queue waits, with a peer and without") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "server";
        auto server = weft::create_unix_datagram_socket({.local_path = name});
        auto anybody = weft::create_unix_datagram_socket();
        send_and_receive_many(server, [&](std::string const& data) { anybody.sendto(data, name); });
        auto connected = weft::create_connected_unix_datagram_socket(name);
        send_and_receive_many(server, [&](std::string const& data) { connected.send(data); });
    });
}

TEST_CASE("KD8: the queue is full by the datagrams of others") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "server";
        auto server = weft::create_unix_datagram_socket({.local_path = name});
        auto other = weft::create_unix_datagram_socket();
        auto mine = weft::create_unix_datagram_socket();
        weft::with_task_group([&](weft::task_group& group) {
            weft::cancel_scope scope;
            group.start_soon([&] {
                scope.run([&] {
                    for (;;)
                        other.sendto("other", name);
                });
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            weft::wait_all_tasks_blocked();
            group.start_soon([&] { mine.sendto("mine", name); });
            weft::wait_all_tasks_blocked();
            while (server.receive().data != "mine") {}
        });
    });
}

TEST_CASE("KD5, KD8: close() wakes a sender that waits for room, and a receiver") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "server";
        auto server = weft::create_unix_datagram_socket({.local_path = name});
        auto anybody = weft::create_unix_datagram_socket();
        auto connected = weft::create_connected_unix_datagram_socket(name);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>(
                    [&] {
                        for (;;)
                            anybody.sendto("x", name);
                    },
                    "without a peer");
            });
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>(
                    [&] {
                        for (;;)
                            connected.send("x");
                    },
                    "with one");
            });
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { connected.receive(); }, "receiver");
            });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { connected.receive(); }, "busy");
            anybody.close();
            connected.close();
        });
    });
}

TEST_CASE("KD8: nobody there is told by name, and to the connected as a broken stream") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "server";
        auto anybody = weft::create_unix_datagram_socket();
        check(error_of([&] { anybody.sendto("x", name); }, name.as_posix()) == ENOENT, "no file");
        check(error_of([&] { weft::create_connected_unix_datagram_socket(
                                 name, {.local_path = place / "client"}); },
                       name.as_posix()) == ENOENT,
              "nor can it be connected");
        check(!(place / "client").exists(), "and nothing is left of that");
        auto server = weft::create_unix_datagram_socket({.local_path = name});
        auto connected = weft::create_connected_unix_datagram_socket(name);
        server.close();
        check(error_of([&] { anybody.sendto("x", name); }, name.as_posix()) == ECONNREFUSED,
              "nobody behind it");
        for (int again = 0; again < 2; ++again)
            check_throws<weft::broken_resource_error>([&] { connected.send("x"); }, "it is gone");
        auto const replacing = weft::create_unix_datagram_socket({.local_path = name});
    });
}

TEST_CASE("KS15, KD9: from_socket() takes UNIX datagram sockets; the connected only with a peer") {
    run_with_sockets([] {
        auto [here, there] = weft::test::make_socket_pair(SOCK_DGRAM);
        auto [stream, other] = weft::test::make_socket_pair(SOCK_STREAM);
        weft::unique_fd lonely(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        check_throws<std::invalid_argument>(
            [&] { weft::connected_unix_datagram_socket::from_socket(lonely); }, "no peer");
        check_throws<std::invalid_argument>(
            [&] { weft::connected_unix_datagram_socket::from_socket(stream); }, "a stream");
        check(lonely && stream, "left alone");
        auto const adopted = weft::unix_datagram_socket::from_socket(lonely);
        auto left = weft::connected_unix_datagram_socket::from_socket(here);
        auto right = weft::connected_unix_datagram_socket::from_socket(there);
        left.send("hello");
        check(right.receive() == "hello", "they talk");
    });
}

TEST_CASE("M3: a cancelled receive takes no datagram") {
    run_with_sockets(
        [] {
            auto [here, there] = weft::test::make_socket_pair(SOCK_DGRAM);
            auto left = weft::connected_unix_datagram_socket::from_socket(here);
            auto right = weft::connected_unix_datagram_socket::from_socket(there);
            weft::cancel_scope scope;
            std::optional<std::string> got;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { scope.run([&] { got = right.receive(); }); });
                group.start_soon([&] { left.send("x"); });
                scope.cancel();
            });
            if (!got) got = right.receive();
            check(*got == "x", "now or later");
        },
        50);
}

TEST_SUITE_END();
