#include <weft/streams/unix_socket.hpp>

#include "unix_sockets.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/streams/conformance.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <sys/stat.h>

TEST_SUITE_BEGIN("streams.unix_socket");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::connect_unix_pair;
using weft::test::error_of;
using weft::test::run_with_sockets;
using weft::test::socket_directory;
using weft::test::unix_connection;

::mode_t mode_of(weft::path const& file) { return file.stat().st_mode & 07777; }

// Connections that wait to be accepted, all of them from tasks of the group.
void connect_many(weft::task_group& group, weft::path const& name, int count,
                  std::atomic<int>& connected) {
    for (int each = 0; each < count; ++each)
        group.start_soon([&name, &connected] {
            weft::unix_socket_stream const stream = weft::connect_unix(name);
            ++connected;
        });
}

} // namespace

TEST_CASE("X1-X6, R2-R4, KS1-KS9: UNIX streams conform") {
    run_with_sockets([] {
        weft::check_byte_stream([] {
            auto [here, there] = connect_unix_pair();
            auto breaking = std::make_unique<weft::unix_socket_stream>(std::move(here));
            auto leaving = std::make_unique<weft::unix_socket_stream>(std::move(there));
            auto const reset = [&from = *breaking, &to = *leaving] {
                from.send("never read"); // by one who closes: ECONNRESET, told once by the kernel
                to.close();
            };
            return weft::byte_stream_ends{std::move(breaking), std::move(leaving), reset};
        });
    });
}

TEST_CASE("KC10: where nobody listens, the error says why and names the path") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "socket";
        check(error_of([&] { weft::connect_unix(name); }, name.as_posix()) == ENOENT, "no file");
        weft::create_unix_listener(name).close();
        check(error_of([&] { weft::connect_unix(name); }, name.as_posix()) == ECONNREFUSED,
              "nobody behind it");
    });
}

TEST_CASE("KC10: a path that is too long is refused by name, wherever one is given") {
    run_with_sockets([] {
        weft::path const longest(std::string(107, 'a'));
        weft::path const too_long(std::string(108, 'a'));
        check(error_of([&] { weft::connect_unix(longest); }) == ENOENT, "just short enough");
        auto const is_named = [&too_long](auto call) {
            try {
                call();
            } catch (std::invalid_argument const& failure) {
                return std::string(failure.what()).find("'" + too_long.as_posix() + "'") != std::string::npos;
            }
            return false;
        };
        check(is_named([&] { weft::connect_unix(too_long); }), "connecting");
        check(is_named([&] { weft::create_unix_listener(too_long); }), "listening");
        check(is_named([&] { weft::create_unix_datagram_socket({.local_path = too_long}); }), "binding");
        check(is_named([&] { weft::create_connected_unix_datagram_socket(too_long); }), "connecting datagrams");
        auto datagrams = weft::create_unix_datagram_socket();
        check(is_named([&] { datagrams.sendto("x", too_long); }), "sending");
    });
}

TEST_CASE("KC10: names in the abstract namespace leave no file") {
    run_with_sockets([] {
        std::string const text("\0weft-test-", 11);
        weft::path const name(text + std::to_string(::getpid()));
        auto listener = weft::create_unix_listener(name, {.mode = 0600});
        auto const local = listener.extra(weft::socket_attribute::local_address);
        check(local.is_abstract() && local.path() == name.as_posix().substr(1), "its name");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.accept().send("hello"); });
            check(weft::connect_unix(name).receive() == "hello", "greeted");
        });
        check(error_of([&] { weft::create_unix_listener(name); }) == EADDRINUSE, "not replaced");
    });
}

TEST_CASE("KC10, KL6: in abstract names each octet counts") {
    run_with_sockets([] {
        std::string const own = std::string("\0weft-test-", 11) + std::to_string(::getpid());
        for (std::string const& name :
             {own + "//b", own + "/./b", own + "/", own + "/.", own + "/b"}) {
            auto listener = weft::create_unix_listener(name);
            auto const local = listener.extra(weft::socket_attribute::local_address);
            check(local.is_abstract() && local.path() == name.substr(1), "as given");
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { listener.accept().send(name); });
                check(weft::connect_unix(name).receive() == name, "met");
            });
        }
    });
}

TEST_CASE("KC10: while the backlog is full, connecting waits, and all come through") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "socket";
        auto listener = weft::create_unix_listener(name, {.backlog = 1});
        constexpr int count = 12;
        std::atomic<int> connected = 0;
        weft::with_task_group([&](weft::task_group& group) {
            connect_many(group, name, count, connected);
            weft::wait_all_tasks_blocked();
            check(connected < count, "there is no room for all");
            for (int each = 0; each < count; ++each)
                listener.accept();
        });
        check(connected == count, "none failed");
    });
}

TEST_CASE("KC10, KC6: cancelled while the backlog is full, connecting leaves nothing open") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "socket";
        auto listener = weft::create_unix_listener(name, {.backlog = 0});
        std::atomic<int> connected = 0;
        weft::with_task_group([&](weft::task_group& group) {
            connect_many(group, name, 5, connected);
            weft::wait_all_tasks_blocked();
            group.cancel();
        });
        check(connected < 5, "some waited");
    });
}

TEST_CASE("KL6: the mode of the socket file is the one asked for") {
    run_with_sockets([] {
        socket_directory const place;
        for (::mode_t const mode : {0600u, 0666u, 0777u}) {
            weft::path const name = place / "socket";
            auto const listener = weft::create_unix_listener(name, {.mode = mode});
            check(mode_of(name) == mode, "of a stream");
            weft::path const other = place / "datagrams";
            auto const socket =
                weft::create_unix_datagram_socket({.local_path = other, .local_mode = mode});
            check(mode_of(other) == mode, "of datagrams");
        }
    });
}

TEST_CASE("KL6: a socket that is there is replaced, another file is not, and closing leaves it") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "socket";
        weft::create_unix_listener(name).close();
        check(name.is_socket(), "still there");
        auto const again = weft::create_unix_listener(name);
        weft::path const file = place / "file";
        file.write_text("precious");
        check(error_of([&] { weft::create_unix_listener(file); }, file.as_posix()) == EADDRINUSE,
              "a file is in the way");
        check(file.read_text() == "precious", "it is left alone");
        weft::path const link = place / "link";
        link.symlink_to(name);
        check(error_of([&] { weft::create_unix_listener(link); }) == EADDRINUSE, "a link as well");
        weft::path const nowhere = place / "no" / "directory";
        check(error_of([&] { weft::create_unix_listener(nowhere); }, nowhere.as_posix()) == ENOENT,
              "no directory for it");
    });
}

TEST_CASE("KL6, KC10: names that are no UTF-8") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "\xff\xfe";
        auto listener = weft::create_unix_listener(name);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.accept().send("hello"); });
            auto stream = weft::connect_unix(name);
            check(stream.receive() == "hello", "greeted");
            check(stream.extra(weft::socket_attribute::remote_address).path() == name.as_posix(),
                  "as it was given");
        });
    });
}

TEST_CASE("KL7, KL8: a second accept() is refused; close() ends the first, and later ones") {
    run_with_sockets([] {
        socket_directory const place;
        auto listener = weft::create_unix_listener(place / "socket");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { listener.accept(); }, "woken");
            });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { listener.accept(); }, "busy");
            listener.close();
            listener.close();
        });
        check_throws<weft::closed_resource_error>([&] { listener.accept(); }, "later");
    });
}

TEST_CASE("KL9: a cancelled accept() loses no connection") {
    run_with_sockets(
        [] {
            socket_directory const place;
            weft::path const name = place / "socket";
            auto listener = weft::create_unix_listener(name);
            weft::cancel_scope scope;
            std::optional<weft::unix_socket_stream> accepted;
            std::optional<weft::unix_socket_stream> client;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { scope.run([&] { accepted.emplace(listener.accept()); }); });
                weft::wait_all_tasks_blocked();
                group.start_soon([&] { client.emplace(weft::connect_unix(name)); });
                scope.cancel();
            });
            if (!accepted) accepted.emplace(listener.accept());
            accepted->send("hello");
            check(client->receive() == "hello", "it is the one");
        },
        20);
}

TEST_CASE("KS13, KL11: attributes of both ends, and no ports") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "socket";
        auto listener = weft::create_unix_listener(name);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                auto const accepted = listener.accept();
                check(accepted.extra(weft::socket_attribute::remote_address).path().empty(),
                      "the client has no name");
                check(accepted.extra(weft::socket_attribute::local_address).path() ==
                          name.as_posix(),
                      "the server's");
            });
            auto const client = weft::connect_unix(name);
            check(client.extra(weft::socket_attribute::family) == AF_UNIX, "family");
            check(client.extra(weft::socket_attribute::remote_address).path() == name.as_posix(),
                  "the server's name");
            check_throws<weft::typed_attribute_lookup_error>(
                [&] { client.extra(weft::socket_attribute::remote_port); }, "no port");
        });
        check(listener.extra(weft::socket_attribute::local_address).to_string() ==
                  "unix:" + name.as_posix(),
              "the listener's");
        check_throws<weft::typed_attribute_lookup_error>(
            [&] { listener.extra(weft::socket_attribute::remote_address); }, "no other side");
        check_throws<weft::typed_attribute_lookup_error>(
            [&] { listener.extra(weft::socket_attribute::local_port); }, "nor a port");
    });
}

TEST_CASE("KS13: the credentials of the peer are those of its process") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        auto const peer = pair.here.extra(weft::socket_attribute::peer_credentials);
        check(peer == weft::peer_credentials{::getpid(), ::geteuid(), ::getegid()}, "our own");
        pair.here.close();
        check_throws<weft::closed_resource_error>(
            [&] { pair.here.extra(weft::socket_attribute::peer_credentials); }, "closed");
    });
}

TEST_CASE("KS2: a peer that leaves with unread data breaks the stream, and it stays so") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        pair.here.send("unread");
        pair.there.close();
        for (int again = 0; again < 2; ++again) {
            check_throws<weft::broken_resource_error>([&] { pair.here.receive(); }, "receive");
            check_throws<weft::broken_resource_error>([&] { pair.here.receive_fds(1, 1); }, "fds");
            check_throws<weft::broken_resource_error>([&] { pair.here.send("x"); }, "send");
        }
    });
}

TEST_CASE("KS8: close() wakes whoever receives, sends or waits for descriptors") {
    run_with_sockets(
        [] {
            unix_connection pair = connect_unix_pair();
            unix_connection other = connect_unix_pair();
            std::string const much(10'000'000, 'x');
            std::atomic<int> told = 0;
            auto const expect_closed = [&told](auto call) {
                return [&told, call] {
                    check_throws<weft::closed_resource_error>(call, "woken");
                    ++told;
                };
            };
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon(expect_closed([&] { pair.here.receive(); }));
                group.start_soon(expect_closed([&] { pair.here.send(much); }));
                group.start_soon(expect_closed([&] { other.here.receive_fds(1, 1); }));
                weft::wait_all_tasks_blocked();
                check_throws<weft::busy_resource_error>([&] { other.here.receive(); }, "busy");
                pair.here.close();
                other.here.close();
            });
            check(told == 3, "all of them");
        },
        5);
}

TEST_CASE("KS12, KS15: from_socket() takes what is a connected UNIX stream, and leaves the rest") {
    run_with_sockets([] {
        auto [stream, peer] = weft::test::make_socket_pair(SOCK_STREAM);
        auto [datagrams, other] = weft::test::make_socket_pair(SOCK_DGRAM);
        weft::unique_fd unconnected(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        weft::unique_fd ip(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        weft::unique_fd file = std::move(weft::test::open_some(1).front());
        for (weft::unique_fd* const wrong : {&datagrams, &unconnected, &ip, &file}) {
            check_throws<std::invalid_argument>(
                [&] { weft::unix_socket_stream::from_socket(*wrong); }, "not one of those");
            check(*wrong && ::fcntl(wrong->get(), F_GETFD) >= 0, "it is left alone");
        }
        check_throws<std::invalid_argument>(
            [&] { weft::socket_listener<weft::unix_socket_stream>::from_socket(ip); },
            "a listener of another family");
        check_throws<std::invalid_argument>(
            [&] { weft::unix_datagram_socket::from_socket(stream); }, "no datagrams");
        int const number = stream.get();
        auto const adopted = weft::unix_socket_stream::from_socket(stream);
        check(!stream && adopted.extra(weft::socket_attribute::raw_socket) == number, "owned");
        check((::fcntl(number, F_GETFL) & O_NONBLOCK) != 0, "it does not block");
        check(::fcntl(number, F_GETFD) == FD_CLOEXEC, "closed on exec");
    });
}

TEST_CASE("KS11: much in both directions at once, and in many parts") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        std::string const part(5000, 'p');
        std::vector<weft::bytes_view> const parts(300, part);
        weft::with_task_group([&](weft::task_group& group) {
            for (weft::unix_socket_stream* const end : {&pair.here, &pair.there}) {
                group.start_soon([&parts, end] {
                    end->send(parts);
                    end->send_eof();
                });
                group.start_soon([&parts, &part, end] {
                    std::size_t count = 0;
                    for (weft::bytes const& chunk : *end)
                        count += chunk.size();
                    check(count == parts.size() * part.size(), "all of it");
                });
            }
        });
    });
}

TEST_SUITE_END();
