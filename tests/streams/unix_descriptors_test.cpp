#include <weft/streams/unix_socket.hpp>

#include "injected_errors.hpp"
#include "support/child_process.hpp"
#include "support/few_descriptors.hpp"
#include "unix_sockets.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>

#include <sys/resource.h>

// run_test() counts open descriptors: what leaks fails every one of these.

TEST_SUITE_BEGIN("streams.unix_descriptors");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::connect_unix_pair;
using weft::test::error_of;
using weft::test::numbers_of;
using weft::test::open_some;
using weft::test::run_with_sockets;
using weft::test::socket_directory;
using weft::test::unix_connection;

void send_some(unix_connection& pair, std::size_t count, weft::bytes_view message = "message") {
    auto const fds = open_some(count);
    pair.here.send_fds(message, numbers_of(fds));
}

bool is_null_device(weft::unique_fd const& fd) {
    struct ::stat found {};
    struct ::stat null {};
    return ::fstat(fd.get(), &found) == 0 && ::stat("/dev/null", &null) == 0 &&
           found.st_rdev == null.st_rdev;
}

weft::test::child_program const without_room("no room for received descriptors", [] {
    // UBSan needs descriptors to look at a kind of object for the first time: so only one worker, an error
    // like the one to come, and a wait that makes the poller known before the monitor asks it.
    weft::run({.workers = 1}, [] {
        weft::sleep(1ms);
        unix_connection pair = connect_unix_pair();
        send_some(pair, 4);
        pair.here.send("after");
        error_of([] { throw std::system_error(EMFILE, std::system_category(), "the first one"); });
        int error = 0;
        {
            weft::test::few_descriptors const limit(2);
            error = error_of([&] { pair.there.receive_fds(100, 10); });
        }
        bool const usable = pair.there.receive() == "after";
        std::printf("error is EMFILE: %d, usable: %d\n", error == EMFILE, usable);
    });
});

// strace lets every other of its calls fail. A pair each time: its registration makes an event, which is what
// tells who was told EAGAIN that there is something after all.
weft::test::child_program const disturbed("passes descriptors", [] {
    weft::run({.workers = 1}, [] {
        for (int round = 0; round < 20; ++round) {
            unix_connection pair = connect_unix_pair();
            std::string const text = std::to_string(round);
            send_some(pair, 3, text);
            auto const [message, fds] = pair.there.receive_fds(100, 10);
            check(message == text && fds.size() == 3, "all of it");
            check(std::ranges::all_of(fds, is_null_device), "what was sent");
            std::array<weft::bytes_view, 2> const parts{"in ", "parts"}; // another way to sendmsg(2)
            pair.there.send(parts);
            check(pair.here.receive() == "in parts", "both");
        }
    });
    std::puts("all arrived");
});

weft::test::child_program const without_any("no descriptor for a UNIX socket", [] {
    weft::run({.workers = 1}, [] {
        socket_directory const place;
        weft::path const name = place / "name";
        weft::test::few_descriptors const limit(0);
        auto const told = [&name](auto&& call) {
            try {
                call();
            } catch (std::system_error const& failure) {
                bool const names_it = std::string(failure.what()).find(name.as_posix()) != std::string::npos;
                return failure.code().value() == EMFILE && names_it;
            }
            return false;
        };
        std::printf("connect %d, listen %d, datagrams %d, connected datagrams %d\n",
                    told([&] { weft::connect_unix(name); }), told([&] { weft::create_unix_listener(name); }),
                    told([&] { weft::create_unix_datagram_socket({.local_path = name}); }),
                    told([&] { weft::create_connected_unix_datagram_socket(name); }));
    });
});

} // namespace

TEST_CASE("KS14: message and descriptors arrive together, in order, closed on exec") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        {
            weft::unique_fd const read_end(ends[0]);
            weft::unique_fd const write_end(ends[1]);
            pair.here.send_fds("both", std::array{read_end.get(), write_end.get()});
        }
        auto const [message, fds] = pair.there.receive_fds(100, 5);
        check(message == "both" && fds.size() == 2, "both of them");
        for (weft::unique_fd const& fd : fds)
            check(::fcntl(fd.get(), F_GETFD) == FD_CLOEXEC, "closed on exec");
        char octet = 0;
        check(::write(fds[1].get(), "x", 1) == 1 && ::read(fds[0].get(), &octet, 1) == 1, "order");
    });
}

TEST_CASE("KS14: a message or descriptors that cannot be are refused, and nothing is sent") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        std::array const valid{0};
        check_throws<std::invalid_argument>([&] { pair.here.send_fds("", valid); }, "no message");
        check_throws<std::invalid_argument>([&] { pair.here.send_fds("x", {}); }, "none");
        std::vector<int> const many(254, 0);
        check_throws<std::invalid_argument>([&] { pair.here.send_fds("x", many); }, "too many");
        check_throws<std::invalid_argument>([&] { pair.there.receive_fds(1, 0); }, "no room");
        std::array const not_open{0, 1 << 20};
        check(error_of([&] { pair.here.send_fds("x", not_open); }) == EBADF, "not open");
        pair.here.send("fine");
        check(pair.there.receive() == "fine", "as if nothing had happened");
    });
}

TEST_CASE("KS14: as many descriptors as the system takes") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        send_some(pair, 253);
        auto const [message, fds] = pair.there.receive_fds(100, 1000);
        check(fds.size() == 253 && is_null_device(fds.back()), "all of them");
    });
}

TEST_CASE("KS14: more descriptors than asked for: what fits arrives, the rest is closed") {
    run_with_sockets([] {
        for (std::size_t const asked : {1, 2, 3}) { // an odd number leaves padding
            unix_connection pair = connect_unix_pair();
            send_some(pair, 5);
            auto const [message, fds] = pair.there.receive_fds(100, asked);
            check(message == "message" && fds.size() == asked, "not more");
            for (weft::unique_fd const& fd : fds)
                check(is_null_device(fd), "the first ones");
        }
    });
}

TEST_CASE("KS14: who has no limit for octets asks for as many as there can be") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        send_some(pair, 1);
        auto const [message, fds] = pair.there.receive_fds(SIZE_MAX, 1);
        check(message == "message" && fds.size() == 1, "what there is");
    });
}

TEST_CASE("KS14: the end, after everything else") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        send_some(pair, 1);
        pair.here.send("plain");
        pair.here.close();
        check(pair.there.receive_fds(100, 1).second.size() == 1, "with a descriptor");
        auto const [message, fds] = pair.there.receive_fds(100, 1);
        check(message == "plain" && fds.empty(), "without one");
        for (int again = 0; again < 2; ++again)
            check_throws<weft::end_of_stream>([&] { pair.there.receive_fds(1, 1); }, "the end");
    });
}

TEST_CASE("KS14: without room for octets the descriptors arrive, and the message stays") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        send_some(pair, 2, "kept");
        auto const [message, fds] = pair.there.receive_fds(0, 2);
        check(message.empty() && fds.size() == 2, "only those");
        auto const [none, nor_fds] = pair.there.receive_fds(0, 2);
        check(none.empty() && nor_fds.empty(), "this is not the end");
        check(pair.there.receive() == "kept", "the message");
        pair.here.close();
        check_throws<weft::end_of_stream>([&] { pair.there.receive_fds(0, 1); }, "that is");
    });
}

TEST_CASE("KS14: descriptors that nobody asks for do not leak") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        send_some(pair, 3);
        check(pair.there.receive() == "message", "by a call without descriptors");
        send_some(pair, 3);
        pair.there.close(); // not received at all
    });
}

TEST_CASE("KS14: other ancillary data is refused, and the descriptors with it are closed") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        int const on = 1;
        int const raw = pair.there.extra(weft::socket_attribute::raw_socket);
        check(::setsockopt(raw, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0, "SO_PASSCRED");
        send_some(pair, 2);
        check_throws<std::runtime_error>([&] { pair.there.receive_fds(100, 100); }, "unexpected");
        pair.here.send("fine");
        check(pair.there.receive() == "fine", "usable");
    });
}

TEST_CASE("KS14: a message larger than the kernel's buffers, its descriptors with the beginning") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        std::string const much(3'000'000, 'm');
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                send_some(pair, 2, much);
                pair.here.send_eof();
            });
            auto [all, fds] = pair.there.receive_fds(1000, 2);
            check(fds.size() == 2, "with the beginning");
            for (weft::bytes const& chunk : pair.there)
                all += chunk;
            check(all == much, "all of it");
        });
    });
}

TEST_CASE("KS14: cancelled at any moment, receive_fds() took nothing or gave everything") {
    run_with_sockets(
        [] {
            unix_connection pair = connect_unix_pair();
            weft::cancel_scope scope;
            std::optional<std::pair<weft::bytes, std::vector<weft::unique_fd>>> got;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon(
                    [&] { scope.run([&] { got.emplace(pair.there.receive_fds(100, 2)); }); });
                group.start_soon([&] { send_some(pair, 2); });
                scope.cancel();
            });
            if (!got) got.emplace(pair.there.receive_fds(100, 2));
            check(got->first == "message" && got->second.size() == 2, "now or later");
        },
        50);
}

TEST_CASE("KS14, KS4: cancelled, send_fds() leaves the descriptors here open and the stream usable") {
    run_with_sockets([] {
        unix_connection pair = connect_unix_pair();
        std::string const much(5'000'000, 'm');
        auto const fds = open_some(1);
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon(
                [&] { scope.run([&] { pair.here.send_fds(much, numbers_of(fds)); }); });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { pair.here.send("x"); }, "busy");
            scope.cancel();
        });
        check(scope.cancelled_caught() && is_null_device(fds.front()), "it is still open");
        check(pair.there.receive_fds(100, 1).second.size() == 1, "it went with the beginning");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                pair.here.send("the end");
                pair.here.close();
            });
            std::string rest;
            for (weft::bytes const& chunk : pair.there)
                rest += chunk;
            check(rest.ends_with("the end"), "sending goes on");
        });
    });
}

TEST_CASE("KS14: without room for all descriptors it is EMFILE, and none of them leaks") {
    auto const end = weft::test::run_child("no room for received descriptors");
    CHECK(end.exit_code == 0);
    INFO(end.output);
    CHECK(end.says("error is EMFILE: 1, usable: 1"));
}

TEST_CASE("KS14: calls that are interrupted, or would wait, neither lose descriptors nor send them twice") {
    weft::test::check_all_arrives_despite_errors("passes descriptors", "recvmsg,sendmsg", 60);
}

TEST_CASE("KC10, KL6, KD8: without a descriptor for a UNIX socket the error names its path") {
#if defined(__SANITIZE_ADDRESS__)
    MESSAGE("not with UBSan: it looks at objects through a pipe, for which there is no descriptor");
#else
    auto const end = weft::test::run_child("no descriptor for a UNIX socket");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("connect 1, listen 1, datagrams 1, connected datagrams 1"));
#endif
}

TEST_SUITE_END();
