#include "unix_sockets.hpp"
#include "support/receive_all.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/streams/udp.hpp>

#include <doctest/doctest.h>

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

// Each call that waits for the kernel, cancelled at one moment after another: on entry, when it has
// begun to wait, when what it waits for comes, and later. run_test() counts what is left open.

TEST_SUITE_BEGIN("streams.socket_cancel");

namespace {

using weft::test::check;
using weft::test::connect_pair;
using weft::test::connect_unix_pair;
using weft::test::port_of;
using weft::test::receive_all;
using weft::test::run_with_sockets;
using weft::test::socket_directory;

constexpr int moments = 12;

// The call, which is cancelled after so many turns of the scheduler, next to the other side, which is
// not. Whether the call came to its end.
bool cut_short_after(int turns, std::function<void()> const& call,
                     std::function<void()> const& other_side) {
    bool finished = false;
    weft::cancel_scope scope;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            scope.run([&] {
                call();
                finished = true;
            });
        });
        group.start_soon(other_side);
        for (int turn = 0; turn < turns; ++turn)
            weft::lowlevel::checkpoint();
        scope.cancel();
        weft::wait_all_tasks_blocked();
    });
    return finished;
}

void at_every_moment(std::function<void(int)> const& test) {
    run_with_sockets([&] {
        for (int moment = 0; moment < moments; ++moment)
            test(moment);
    });
}

std::string numbered_text(std::size_t size) {
    std::string text;
    for (int number = 0; text.size() < size; ++number)
        text += std::to_string(number) + " ";
    return text;
}

} // namespace

TEST_CASE("M3, KS1: receive() took nothing, whenever it is cancelled") {
    at_every_moment([](int moment) {
        auto pair = connect_pair();
        std::string got;
        cut_short_after(
            moment, [&] { got = pair.here.receive(); }, [&] { pair.there.send("all of it"); });
        pair.there.send_eof();
        check(got + receive_all(pair.here) == "all of it", "now or later");
    });
}

TEST_CASE("KS4: what a cancelled send() has sent is a beginning, and the stream goes on") {
    std::string const text = numbered_text(3'000'000);
    at_every_moment([&text](int moment) {
        auto pair = connect_pair();
        std::string got(1000, '\0');
        std::size_t first = 0;
        bool const finished = cut_short_after(
            moment, [&] { pair.here.send(text); },
            [&] { weft::move_on_after(std::chrono::milliseconds(1), [&] {
                      first = pair.there.receive_some(weft::as_buffer(got));
                  }); });
        got.resize(first);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { got += receive_all(pair.there); });
            pair.here.send("!");
            pair.here.send_eof();
        });
        check(got.ends_with('!') && text.starts_with(got.substr(0, got.size() - 1)), "a beginning");
        check(!finished || got.size() == text.size() + 1, "finished, all of it");
    });
}

TEST_CASE("KS4: what a cancelled send_file() has sent is a beginning as well") {
    std::string const text = numbered_text(3'000'000);
    at_every_moment([&text](int moment) {
        socket_directory const place;
        (place / "file").write_text(text);
        weft::unique_fd const file(
            ::open((place / "file").as_posix().c_str(), O_RDONLY | O_CLOEXEC));
        auto pair = connect_pair();
        bool const finished = cut_short_after(
            moment, [&] { pair.here.send_file(file.get(), 0, text.size()); }, [] {});
        std::string got;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { got = receive_all(pair.there); });
            pair.here.send_eof();
        });
        check(text.starts_with(got) && (!finished || got.size() == text.size()), "a beginning");
    });
}

TEST_CASE("KL9: accept() loses no connection, whenever it is cancelled") {
    at_every_moment([](int moment) {
        socket_directory const place;
        auto listener = weft::create_unix_listener(place / "socket");
        std::optional<weft::unix_socket_stream> accepted;
        std::optional<weft::unix_socket_stream> client;
        cut_short_after(
            moment, [&] { accepted.emplace(listener.accept()); },
            [&] { client.emplace(weft::connect_unix(place / "socket")); });
        if (!accepted) accepted.emplace(listener.accept());
        accepted->send("hello");
        check(client->receive() == "hello", "now or later");
    });
}

TEST_CASE("KC6, KC10: connecting leaves nothing open, whenever it is cancelled") {
    at_every_moment([](int moment) {
        socket_directory const place;
        auto tcp = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        auto local = weft::create_unix_listener(place / "socket", {.backlog = 0});
        std::optional<weft::unix_socket_stream> in_the_way;
        cut_short_after(
            moment, [&] { weft::connect_tcp("127.0.0.1", port_of(tcp)); },
            [&] { in_the_way.emplace(weft::connect_unix(place / "socket")); });
        cut_short_after(
            moment, [&] { weft::connect_unix(place / "socket"); }, [&] { local.accept(); });
    });
}

TEST_CASE("KL6: a listener that is cancelled while it is made can be made again") {
    at_every_moment([](int moment) {
        socket_directory const place;
        cut_short_after(
            moment, [&] { weft::create_unix_listener(place / "socket", {.mode = 0600}); }, [] {});
        auto const again = weft::create_unix_listener(place / "socket");
    });
}

TEST_CASE("KS14: descriptors arrive once or not yet, whenever receive_fds() is cancelled") {
    at_every_moment([](int moment) {
        auto pair = connect_unix_pair();
        auto const fds = weft::test::open_some(3);
        std::vector<weft::unique_fd> got;
        cut_short_after(
            moment, [&] { got = pair.there.receive_fds(10, 3).second; },
            [&] { pair.here.send_fds("message", weft::test::numbers_of(fds)); });
        if (got.empty()) got = pair.there.receive_fds(10, 3).second;
        check(got.size() == 3, "now or later");
    });
}

TEST_CASE("KS14: what a cancelled send_fds() has sent begins with the descriptors") {
    std::string const text = numbered_text(1'000'000);
    at_every_moment([&text](int moment) {
        auto pair = connect_unix_pair();
        auto const fds = weft::test::open_some(2);
        cut_short_after(
            moment, [&] { pair.here.send_fds(text, weft::test::numbers_of(fds)); }, [] {});
        pair.here.close();
        try {
            auto [got, received] = pair.there.receive_fds(1000, 2);
            check(received.size() == 2, "with the beginning");
            check(text.starts_with(got + receive_all(pair.there)), "a beginning");
        } catch (weft::end_of_stream const&) { // cancelled on entry
        }
    });
}

TEST_CASE("KD3, KD8: datagrams are whole and none is lost, whenever receiving is cancelled") {
    at_every_moment([](int moment) {
        auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto client = weft::create_connected_udp_socket("127.0.0.1", port_of(server));
        std::vector<weft::datagram> got;
        cut_short_after(
            moment, [&] { got = server.receive_many(); },
            [&] { client.send_many(std::array<weft::bytes, 2>{"one", "two"}); });
        while (got.size() < 2)
            got.push_back(server.receive());
        check(got[0].data == "one" && got[1].data == "two", "both, in order");
    });
}

TEST_CASE("KD8: a datagram was sent or was not, whenever sending to a full queue is cancelled") {
    at_every_moment([](int moment) {
        socket_directory const place;
        weft::path const name = place / "server";
        auto server = weft::create_unix_datagram_socket({.local_path = name});
        auto client = weft::create_unix_datagram_socket();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (;;)
                    client.sendto("fill", name);
            });
            weft::wait_all_tasks_blocked(); // the queue is full now
            group.cancel();
        });
        bool const finished = cut_short_after(
            moment, [&] { client.sendto("last", name); }, [&] { server.receive(); });
        bool found = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { client.sendto("end", name); });
            for (std::string got; got != "end"; found = found || got == "last")
                got = server.receive().data;
        });
        check(found == finished, "as it says");
    });
}

TEST_SUITE_END();
