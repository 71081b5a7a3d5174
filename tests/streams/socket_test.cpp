#include <weft/streams/socket.hpp>

#include "sockets.hpp"
#include "support/address_space.hpp"
#include "support/child_process.hpp"
#include "support/receive_all.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/streams/udp.hpp>
#include <weft/streams/unix_socket.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <netinet/in.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

TEST_SUITE_BEGIN("streams.socket");

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::close_with_reset;
using weft::test::connect_pair;
using weft::test::connect_to;
using weft::test::connection;
using weft::test::listen;
using weft::test::port_of;
using weft::test::receive_all;
using weft::test::run_with_sockets;

int nested_code(std::exception const& failure) {
    try {
        std::rethrow_if_nested(failure);
    } catch (std::system_error const& cause) {
        return cause.code().value();
    }
    return 0;
}

// Adopts until there is no memory for a descriptor's state.
weft::test::child_program const adopts_without_memory("adopts without memory", [] {
    ::rlimit descriptors{};
    ::getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = std::min<::rlim_t>(descriptors.rlim_max, 5000);
    ::setrlimit(RLIMIT_NOFILE, &descriptors);
    weft::run({.workers = 1}, [] {
        auto const listener = weft::test::listen();
        connection const pair = connect_pair();
        auto const bound = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto const connected = weft::create_connected_udp_socket("127.0.0.1", port_of(bound));
        int streams[2];
        int datagrams[2];
        int pipe[2];
        check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, streams) == 0, "streams");
        check(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, datagrams) == 0, "datagrams");
        check(::pipe2(pipe, O_CLOEXEC) == 0, "a pipe");
        std::vector<weft::pipe_send_stream> all;
        all.reserve(5000);
        std::puts("the beginning");
        weft::test::allow_more_address_space(64 << 10); // less than the states are made of
        auto const adopt = [&](char const* what, int fd, auto call) {
            weft::unique_fd own(::dup(fd));
            int const number = own.get();
            int error = 0;
            try {
                call(own);
            } catch (std::system_error const& failure) {
                error = failure.code().value();
            }
            bool const is_left_alone = own.get() == number && ::fcntl(number, F_GETFD) >= 0;
            if (error != 0) std::printf("%s: %d %d\n", what, error == ENOMEM, is_left_alone);
            return error == 0;
        };
        auto const raw = [](auto const& socket) { return socket.extra(weft::socket_attribute::raw_socket); };
        while (adopt("a pipe's end", pipe[1], [&](weft::unique_fd& fd) {
            all.push_back(weft::pipe_send_stream::from_descriptor(std::move(fd)));
        })) {}
        using weft::unique_fd;
        adopt("its other end", pipe[0],
              [](unique_fd& fd) { weft::pipe_receive_stream::from_descriptor(std::move(fd)); });
        adopt("TCP", raw(pair.here), [](unique_fd& fd) { weft::socket_stream::from_socket(fd); });
        adopt("a listener", raw(listener),
              [](unique_fd& fd) { weft::socket_listener<weft::socket_stream>::from_socket(fd); });
        adopt("UNIX", streams[0], [](unique_fd& fd) { weft::unix_socket_stream::from_socket(fd); });
        adopt("UDP", raw(bound), [](unique_fd& fd) { weft::udp_socket::from_socket(fd); });
        adopt("connected UDP", raw(connected),
              [](unique_fd& fd) { weft::connected_udp_socket::from_socket(fd); });
        adopt("UNIX datagrams", datagrams[0],
              [](unique_fd& fd) { weft::unix_datagram_socket::from_socket(fd); });
        adopt("connected UNIX datagrams", datagrams[0],
              [](unique_fd& fd) { weft::connected_unix_datagram_socket::from_socket(fd); });
        std::puts("the end");
    });
});

} // namespace

TEST_CASE("KS1: what was sent before the end is received before it, and the end stays") {
    run_with_sockets([] {
        connection pair = connect_pair();
        pair.here.send("first");
        weft::bytes_view const parts[] = {"", "sec", "", "ond", ""};
        pair.here.send(parts);
        pair.here.close();
        check(receive_all(pair.there) == "firstsecond", "all of it");
        for (int again = 0; again < 2; ++again)
            check_throws<weft::end_of_stream>([&] { pair.there.receive(); }, "the end");
    });
}

TEST_CASE("X2, X3: receive(0) is refused, and sending nothing does nothing") {
    run_with_sockets([] {
        connection pair = connect_pair();
        check_throws<std::invalid_argument>([&] { pair.here.receive(0); }, "no bytes wanted");
        pair.here.send("");
        pair.here.send(std::span<weft::bytes_view const>());
        pair.here.send("x");
        check(pair.there.receive(100) == "x", "only that");
    });
}

TEST_CASE("KS1: one octet at a time, waiting for each") {
    run_with_sockets([] {
        connection pair = connect_pair();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (int count = 0; count < 200; ++count) {
                    pair.here.send("a");
                    check(pair.here.receive() == "b", "the answer");
                }
                pair.here.send_eof();
            });
            int count = 0;
            for (weft::bytes const& chunk : pair.there) {
                check(chunk == "a", "the question");
                ++count;
                pair.there.send("b");
            }
            check(count == 200, "all of them");
        });
    });
}

TEST_CASE("KS1: data that comes together with the end, after a short read") {
    run_with_sockets(
        [] {
            connection pair = connect_pair();
            pair.here.send("x");
            check(pair.there.receive() == "x", "a short read");
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { check(receive_all(pair.there) == "yz", "the rest"); });
                pair.here.send("y");
                pair.here.send("z");
                pair.here.close();
            });
        },
        20);
}

TEST_CASE("KS18: urgent data, where reading stops in front of it, holds nothing up") {
    run_with_sockets([] {
        connection pair = connect_pair();
        int const raw = pair.here.extra(weft::socket_attribute::raw_socket);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                std::string got = receive_all(pair.there);
                std::erase(got, '!'); // an older mark that was not read in time becomes plain data
                check(got == "abcdef", "all of it: " + got);
            });
            for (char const* const part : {"ab", "cd", "ef"}) {
                check(::send(raw, part, 2, MSG_NOSIGNAL) == 2, "sent");
                if (*part != 'e') check(::send(raw, "!", 1, MSG_OOB) == 1, "urgent");
            }
            pair.here.send_eof();
        });
    });
}

TEST_CASE("KS2, EX2: after a reset both directions are broken and stay so, with the cause; closed "
          "has none") {
    run_with_sockets([] {
        connection pair = connect_pair();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                int cause = 0;
                try {
                    pair.there.receive();
                } catch (weft::broken_resource_error const& failure) {
                    cause = nested_code(failure);
                }
                check(cause == ECONNRESET, "the cause is nested");
                check_throws<weft::broken_resource_error>([&] { pair.there.receive(); }, "again");
                check_throws<weft::broken_resource_error>([&] { pair.there.send("x"); }, "send");
                check_throws<weft::broken_resource_error>([&] { pair.there.receive(); }, "still");
                pair.there.close();
                bool closed = false;
                try {
                    pair.there.receive();
                } catch (weft::closed_resource_error const& failure) {
                    closed = dynamic_cast<std::nested_exception const*>(&failure) == nullptr;
                }
                check(closed, "closed, and nothing nested");
            });
            close_with_reset(pair.here);
        });
    });
}

TEST_CASE("KS2: data that came before a reset is received before it") {
    run_with_sockets([] {
        connection pair = connect_pair();
        pair.here.send("last words");
        check(pair.there.receive(5) == "last ", "a part");
        close_with_reset(pair.here);
        std::string rest;
        check_throws<weft::broken_resource_error>(
            [&] {
                for (;;)
                    rest += pair.there.receive();
            },
            "the reset");
        check(rest == "words" || rest.empty(), "in order");
    });
}

TEST_CASE("KS3: sending to a peer that is gone breaks the stream, with the cause, and raises no signal") {
    run_with_sockets([] {
        connection pair = connect_pair();
        pair.there.close();
        int cause = 0;
        try {
            for (;;)
                pair.here.send(std::string(10000, 'x'));
        } catch (weft::broken_resource_error const& failure) { // nobody there
            cause = nested_code(failure);
        }
        check(cause == EPIPE || cause == ECONNRESET, "the cause is nested");
    });
}

TEST_CASE("KS4: after a cancelled send the stream still receives, and sending works or fails") {
    run_with_sockets([] {
        connection pair = connect_pair();
        std::string const much(20'000'000, 'x');
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { pair.here.send(much); }); });
            weft::wait_all_tasks_blocked();
            scope.cancel();
        });
        check(scope.cancelled_caught(), "it waited");
        pair.there.send("hello");
        check(pair.here.receive() == "hello", "the other direction works");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(receive_all(pair.there).ends_with("xend"), "the rest"); });
            pair.here.send("end");
            pair.here.send_eof();
        });
    });
}

TEST_CASE("X4, KS5, KS6: send_eof() ends one direction, once or twice; sending then fails") {
    run_with_sockets([] {
        connection pair = connect_pair();
        pair.here.send_eof();
        pair.here.send_eof();
        check_throws<weft::end_of_stream>([&] { pair.there.receive(); }, "the end");
        check_throws<weft::broken_resource_error>([&] { pair.here.send("x"); }, "after the end");
        pair.there.send("still here");
        check(pair.here.receive() == "still here", "the other direction goes on");
        pair.there.close();
        check_throws<weft::end_of_stream>([&] { pair.here.receive(); }, "a clean end");
        pair.here.close();
        check_throws<weft::closed_resource_error>([&] { pair.here.send_eof(); }, "closed");
    });
}

TEST_CASE("X5: iterating ends with the stream, and lets every other error pass") {
    run_with_sockets([] {
        connection pair = connect_pair();
        pair.here.send("all");
        pair.here.send_eof();
        std::string got;
        for (int again = 0; again < 2; ++again)
            for (weft::bytes const& chunk : pair.there)
                got += chunk;
        check(got == "all", "to the end, which stays");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::broken_resource_error>([&] { receive_all(pair.here); }, "reset");
                pair.here.close();
                check_throws<weft::closed_resource_error>([&] { receive_all(pair.here); }, "ours");
            });
            weft::wait_all_tasks_blocked();
            close_with_reset(pair.there);
        });
    });
}

TEST_CASE("M3: a cancelled receive takes nothing") {
    run_with_sockets(
        [] {
            connection pair = connect_pair();
            weft::cancel_scope scope;
            std::string got;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { scope.run([&] { got = pair.here.receive(); }); });
                group.start_soon([&] { pair.there.send("x"); });
                scope.cancel();
            });
            if (got.empty()) got = pair.here.receive();
            check(got == "x", "now or later");
        },
        100);
}

TEST_CASE("KS11: much in both directions at once, as it was") {
    run_with_sockets([] {
        connection pair = connect_pair();
        std::string much(6'000'000, '\0');
        for (std::size_t place = 0; place < much.size(); ++place)
            much[place] = char(place * 31 + place / 977);
        weft::with_task_group([&](weft::task_group& group) {
            for (weft::socket_stream* const end : {&pair.here, &pair.there}) {
                group.start_soon([&much, end] {
                    end->send(much);
                    end->send_eof();
                });
                group.start_soon([&much, end] { check(receive_all(*end) == much, "the same"); });
            }
        });
    });
}

TEST_CASE(
    "KC8, KS12: both ends have TCP_NODELAY and no SO_KEEPALIVE, do not block and are closed on "
    "exec") {
    run_with_sockets([] {
        connection pair = connect_pair();
        for (weft::socket_stream* const end : {&pair.here, &pair.there}) {
            int const fd = end->extra(weft::socket_attribute::raw_socket);
            auto const is_set = [fd](int level, int option) {
                int value = 0;
                ::socklen_t length = sizeof value;
                check(::getsockopt(fd, level, option, &value, &length) == 0, "an option");
                return value != 0;
            };
            check(is_set(IPPROTO_TCP, TCP_NODELAY), "TCP_NODELAY");
            check(!is_set(SOL_SOCKET, SO_KEEPALIVE), "SO_KEEPALIVE");
            check((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, "O_NONBLOCK");
            check((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, "FD_CLOEXEC");
        }
    });
}

TEST_CASE("KS13: the addresses of both ends match") {
    run_with_sockets([] {
        using namespace weft::socket_attribute;
        connection pair = connect_pair();
        check(pair.here.extra(family) == AF_INET, "family");
        check(pair.here.extra(local_address) == pair.there.extra(remote_address), "addresses");
        check(pair.there.extra(local_address) == pair.here.extra(remote_address), "addresses");
        check(pair.here.extra(local_port) == pair.there.extra(remote_port), "ports");
    });
}

TEST_CASE("KS15: from_socket() takes what is a connected TCP socket, and leaves the rest alone") {
    run_with_sockets([] {
        int fds[2];
        check(::pipe(fds) == 0, "a pipe");
        weft::unique_fd reader(fds[0]);
        weft::unique_fd const writer(fds[1]);
        check_throws<std::invalid_argument>([&] { weft::socket_stream::from_socket(reader); },
                                            "a pipe is no socket");
        check(bool(reader), "left alone");
        weft::unique_fd fresh(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        check_throws<std::invalid_argument>([&] { weft::socket_stream::from_socket(fresh); },
                                            "not connected");
        check_throws<std::invalid_argument>(
            [&] { weft::socket_listener<weft::socket_stream>::from_socket(fresh); }, "not bound");
        weft::unique_fd datagrams(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        check_throws<std::invalid_argument>([&] { weft::socket_stream::from_socket(datagrams); },
                                            "another type");

        connection pair = connect_pair();
        weft::unique_fd twin(::dup(pair.here.extra(weft::socket_attribute::raw_socket)));
        weft::socket_stream adopted = weft::socket_stream::from_socket(twin);
        check(!twin, "taken over");
        pair.here.close();
        adopted.send("by the twin");
        check(pair.there.receive() == "by the twin", "the same socket");
    });
}

TEST_CASE("KS15: what there is no memory to adopt is left alone as well") {
    if (weft::test::slowdown > 1) return; // the sanitizers need address space without bounds
    auto const end = weft::test::run_child("adopts without memory");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    for (char const* const what : {"a pipe's end", "its other end", "TCP", "a listener", "UNIX", "UDP",
                                   "connected UDP", "UNIX datagrams", "connected UNIX datagrams"})
        CHECK(end.says(("\n" + std::string(what) + ": 1 1\n").c_str()));
    CHECK(end.says("the end"));
}

TEST_CASE("KS12: a TCP socket that is adopted does not delay what is sent, whoever made it") {
    run_with_sockets([] {
        auto const delays = [](weft::socket_stream const& stream) {
            int is_off = 0;
            ::socklen_t length = sizeof is_off;
            ::getsockopt(stream.extra(weft::socket_attribute::raw_socket), IPPROTO_TCP, TCP_NODELAY,
                         &is_off, &length);
            return is_off == 0;
        };
        weft::unique_fd listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        weft::unique_fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        ::sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::socklen_t length = sizeof at;
        auto* const address = reinterpret_cast<::sockaddr*>(&at);
        check(::bind(listening.get(), address, length) == 0 && ::listen(listening.get(), 5) == 0 &&
                  ::getsockname(listening.get(), address, &length) == 0 &&
                  ::connect(client.get(), address, length) == 0,
              "connected before the listener is adopted");
        auto here = weft::socket_stream::from_socket(client);
        check(!delays(here), "the stream");
        auto listener = weft::socket_listener<weft::socket_stream>::from_socket(listening);
        auto there = listener.accept();
        check(!delays(there), "from before the listener was adopted");
        auto next = connect_to(listener);
        check(!delays(listener.accept()), "from after that");
        auto own = listen();
        auto connected = connect_to(own);
        auto& accepting = dynamic_cast<weft::socket_listener<weft::socket_stream>&>(
            *own.listeners().front());
        check(!delays(accepting.accept()), "of a listener of ours");
    });
}

TEST_CASE("KS10: a descriptor that was closed behind the stream's back is a broken stream") {
    run_with_sockets([] {
        connection pair = connect_pair();
        check(::close(pair.here.extra(weft::socket_attribute::raw_socket)) == 0, "behind its back");
        for (int again = 0; again < 2; ++again) {
            int cause = 0;
            try {
                pair.here.receive();
            } catch (weft::broken_resource_error const& failure) {
                cause = nested_code(failure);
            }
            check(cause == EBADF, "and says why");
        }
        check_throws<weft::broken_resource_error>([&] { pair.here.send("x"); }, "sending");
        pair.here.close();
        check_throws<weft::closed_resource_error>([&] { pair.here.receive(); }, "closed");
    });
}

TEST_CASE("KS16: reader and writer of a stream miss no event, whichever workers they run on") {
    run_with_sockets([] {
        constexpr int pairs = 8;
        constexpr int rounds = 300;
        weft::with_task_group([&](weft::task_group& group) {
            for (int each = 0; each < pairs; ++each)
                group.start_soon([] {
                    connection pair = connect_pair();
                    auto const say = [](weft::socket_stream& to) {
                        for (int round = 0; round < rounds; ++round) {
                            to.send(std::string(1, char(round)));
                            if (round % 3 == 0) weft::lowlevel::checkpoint(); // to be stolen
                        }
                        to.send_eof();
                    };
                    auto const hear = [](weft::socket_stream& from) {
                        for (int round = 0; round < rounds; ++round) {
                            check(from.receive(1) == std::string(1, char(round)), "the next one");
                            if (round % 5 == 0) weft::lowlevel::checkpoint();
                        }
                        check_throws<weft::end_of_stream>([&] { from.receive(); }, "the end");
                    };
                    weft::with_task_group([&](weft::task_group& inner) {
                        for (weft::socket_stream* const end : {&pair.here, &pair.there}) {
                            inner.start_soon([&say, end] { say(*end); });
                            inner.start_soon([&hear, end] { hear(*end); });
                        }
                    });
                });
        });
    });
}

TEST_CASE("KS18: who always finds data lets others run, and the poller") {
    weft::test::run_test({.workers = {1}, .seeds = {}}, [] {
        connection pair = connect_pair();
        connection other = connect_pair();
        std::atomic<bool> heard = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                other.here.receive(); // told by the poller
                heard = true;
            });
            weft::wait_all_tasks_blocked();
            other.there.send("now");
            for (int round = 0; !heard; ++round) {
                check(round < 1'000'000, "the other one is served in the end");
                pair.there.send("x");
                check(pair.here.receive() == "x", "it is there already");
            }
        });
    });
}

TEST_CASE("KS3: send_file() sends what was asked for, as far as the file goes, and raises no signal") {
    run_with_sockets([] {
        std::string name = "/tmp/weft-test-XXXXXX";
        weft::unique_fd file(::mkstemp(name.data()));
        ::unlink(name.c_str());
        std::string text(3'000'000, 'x');
        for (std::size_t place = 0; place < text.size(); place += 7)
            text[place] = char('a' + place % 26);
        check(::write(file.get(), text.data(), text.size()) == ssize_t(text.size()), "a file");
        connection pair = connect_pair();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check(pair.here.send_file(file.get(), 1, 10) == 10, "a part");
                check(pair.here.send_file(file.get(), 5, text.size()) == text.size() - 5, "the rest");
                check(pair.here.send_file(file.get(), 2 * text.size(), 1) == 0, "behind the end");
                check(pair.here.send_file(file.get(), 0, 0) == 0, "nothing");
                pair.here.send_eof();
            });
            check(receive_all(pair.there) == text.substr(1, 10) + text.substr(5), "as it was");
        });
        check_throws<std::system_error>([&] { pair.there.send_file(-1, 0, 1); }, "no file");
        weft::with_task_group([&](weft::task_group& group) { // it goes in the middle
            group.start_soon([&] {
                check_throws<weft::broken_resource_error>(
                    [&] {
                        for (;;)
                            pair.there.send_file(file.get(), 0, text.size());
                    },
                    "nobody there");
            });
            pair.here.receive();
            pair.here.close();
        });
        pair.there.close();
        check_throws<weft::closed_resource_error>([&] { pair.there.send_file(0, 0, 1); }, "closed");
    });
}

TEST_CASE("KS3: send_file() sends what is not in the page cache as well, with one worker or several") {
    run_with_sockets([] {
        weft::unique_fd file(::open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
        if (!file) return; // a file system without: nothing that a cache is in front of
        std::string text(3'000'000, 'x');
        for (std::size_t place = 0; place < text.size(); place += 7)
            text[place] = char('a' + place % 26);
        check(::write(file.get(), text.data(), text.size()) == ssize_t(text.size()), "a file");
        ::fdatasync(file.get());
        ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
        connection pair = connect_pair();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check(pair.here.send_file(file.get(), 5, text.size()) == text.size() - 5, "all");
                pair.here.send_eof();
            });
            check(receive_all(pair.there) == text.substr(5), "as it was");
        });
    });
}

TEST_SUITE_END();
