#include <weft/streams/connectable.hpp>

#include "deserted_port.hpp"
#include "unix_sockets.hpp"

#include <weft/runtime/cancel_scope.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

TEST_SUITE_BEGIN("streams.connectable");

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::port_of;
using weft::test::run_with_sockets;
using weft::test::socket_directory;

// Of a server that greets whoever comes.
template <class Listener> void expect_greeting(Listener& listener, weft::any_connectable remote) {
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { listener.serve([](auto stream) { stream.send("hello"); }); });
        for (int again = 0; again < 2; ++again)
            check(remote.connect().receive() == "hello", "greeted");
        group.cancel();
    });
}

// A connectable of a user's own.
class counting final : public weft::byte_stream_connectable {
public:
    counting(weft::any_connectable inner, int& count) : inner_(std::move(inner)), count_(&count) {}
    weft::any_byte_stream connect() override {
        ++*count_;
        return inner_.connect();
    }

private:
    weft::any_connectable inner_;
    int* count_;
};

} // namespace

TEST_CASE("NX8: a host and a port, a path, and a connectable of one's own connect again and again") {
    run_with_sockets([] {
        socket_directory const place;
        auto tcp = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        expect_greeting(tcp, weft::as_connectable("127.0.0.1", port_of(tcp)));
        expect_greeting(tcp, weft::as_connectable(std::pair("127.0.0.1", port_of(tcp))));
        auto local = weft::create_unix_listener(place / "socket");
        expect_greeting(local, weft::as_connectable(place / "socket"));
        int count = 0;
        expect_greeting(local, weft::as_connectable(
                                   counting(weft::unix_connectable(place / "socket"), count)));
        check(count == 2, "it was the one");
    });
}

TEST_CASE("NX8: what cannot be connected to is refused when it is made") {
    run_with_sockets([] {
        check_throws<std::invalid_argument>([] { weft::tcp_connectable("localhost", 0); }, "port");
        check_throws<std::invalid_argument>([] { weft::tcp_connectable("", 80); }, "host");
        auto const no_port = std::pair("127.0.0.1", 70'000);
        check_throws<std::invalid_argument>([&] { weft::as_connectable(no_port); }, "4464?");
        check_throws<std::invalid_argument>(
            [] { weft::as_connectable(weft::path(std::string(200, 'x'))); }, "too long");
    });
}

TEST_CASE("NX8: every failure to connect is connection_failed, names the place and has a cause") {
    run_with_sockets([] {
        socket_directory const place;
        weft::path const name = place / "nobody";
        weft::any_connectable const places[] = {weft::as_connectable(name),
                                                weft::as_connectable("weft.invalid", 80)};
        char const* const texts[] = {"nobody", "weft.invalid port 80"};
        for (int each = 0; each < 2; ++each) {
            bool told = false;
            try {
                weft::any_connectable(places[each]).connect();
            } catch (weft::connection_failed const& failure) {
                told = std::string(failure.what()).find(texts[each]) != std::string::npos;
                check_throws<std::system_error>([&] { std::rethrow_if_nested(failure); }, "cause");
            }
            check(told, texts[each]);
        }
    });
}

TEST_CASE("NX8, KC5: a connection that is refused is an error connecting, with all causes") {
    run_with_sockets([] {
        weft::test::deserted_port const nobody;
        std::uint16_t const port = nobody.number();
        std::string what;
        std::size_t causes = 0;
        try {
            weft::as_connectable("127.0.0.1", port).connect();
        } catch (weft::connection_failed const& failure) {
            what = failure.what();
            check(failure.code() == std::errc::connection_refused, "the code");
            try {
                std::rethrow_if_nested(failure);
            } catch (weft::connection_failed const& of_connect_tcp) {
                try {
                    std::rethrow_if_nested(of_connect_tcp);
                } catch (weft::exception_group const& attempts) {
                    causes = attempts.exceptions().size();
                }
            }
        }
        std::string const begins = "error connecting to 127.0.0.1 port " + std::to_string(port);
        check(what.starts_with(begins), "it says: " + what);
        check(causes == 1, "of each attempt");
    });
}

TEST_CASE("NX8: any_connectable is a value: what was moved from connects as well") {
    run_with_sockets([] {
        auto tcp = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::any_connectable first = weft::as_connectable("127.0.0.1", port_of(tcp));
        weft::any_connectable second = std::move(first);
        expect_greeting(tcp, first);
        first = std::move(second);
        expect_greeting(tcp, second);
    });
}

TEST_CASE("NX8, KC6: a cancelled connect() leaves nothing open") {
    run_with_sockets([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::cancel_scope scope;
        scope.cancel();
        scope.run([&] { weft::as_connectable("127.0.0.1", port_of(listener)).connect(); });
        check(scope.cancelled_caught(), "on entry");
    });
}

TEST_SUITE_END();
