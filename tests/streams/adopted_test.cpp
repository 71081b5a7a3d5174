#include "unix_sockets.hpp"

#include <weft/io/detail/raw_address.hpp>
#include <weft/streams/tcp.hpp>
#include <weft/streams/udp.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

// What all kinds of sockets have in common: how they are adopted, and what descriptors they have.

TEST_SUITE_BEGIN("streams.adopted");

namespace {

using weft::unique_fd;
using weft::detail::raw_address;
using weft::test::check;
using weft::test::run_with_sockets;

void check_flags(weft::typed_attribute_provider const& socket, char const* what) {
    int const fd = socket.extra(weft::socket_attribute::raw_socket);
    check((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, std::string(what) + " does not block");
    check((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, std::string(what) + " is closed on exec");
}

enum class state { fresh, bound, connected };

struct kind {
    char const* name;
    int family;
    int type;
    state must_be;
    void (*adopt)(unique_fd&);
};

template <class Socket> void adopt(unique_fd& fd) {
    int const number = fd.get();
    auto const adopted = Socket::from_socket(fd);
    check(!fd && adopted.extra(weft::socket_attribute::raw_socket) == number, "it is owned");
    check_flags(adopted, "an adopted one");
}

kind const kinds[] = {
    {"TCP", AF_INET, SOCK_STREAM, state::connected, adopt<weft::socket_stream>},
    {"a TCP listener", AF_INET, SOCK_STREAM, state::bound, adopt<weft::socket_listener<weft::socket_stream>>},
    {"UDP", AF_INET, SOCK_DGRAM, state::bound, adopt<weft::udp_socket>},
    {"connected UDP", AF_INET, SOCK_DGRAM, state::connected, adopt<weft::connected_udp_socket>},
    {"UNIX", AF_UNIX, SOCK_STREAM, state::connected, adopt<weft::unix_socket_stream>},
    {"a UNIX listener", AF_UNIX, SOCK_STREAM, state::bound,
     adopt<weft::socket_listener<weft::unix_socket_stream>>},
    {"UNIX datagrams", AF_UNIX, SOCK_DGRAM, state::fresh, adopt<weft::unix_datagram_socket>},
    {"connected UNIX datagrams", AF_UNIX, SOCK_DGRAM, state::connected,
     adopt<weft::connected_unix_datagram_socket>},
};

// Blocking, and left open on exec.
unique_fd make_fresh(int family, int type) { return unique_fd(::socket(family, type, 0)); }

unique_fd make_bound(int family, int type) {
    unique_fd fd = make_fresh(family, type);
    raw_address const anywhere( // as the kernel likes
        weft::socket_address::parse(family == AF_UNIX ? "unix:" : "127.0.0.1:0"));
    check(::bind(fd.get(), anywhere.get(), anywhere.length) == 0, "bound");
    return fd;
}

struct connected_ends {
    unique_fd here, there;
};

connected_ends make_connected(int family, int type) {
    connected_ends ends{make_fresh(family, type), make_bound(family, type)};
    if (type == SOCK_STREAM) check(::listen(ends.there.get(), 1) == 0, "there somebody listens");
    raw_address at;
    check(::getsockname(ends.there.get(), at.get(), &at.length) == 0 &&
              ::connect(ends.here.get(), at.get(), at.length) == 0,
          "connected");
    return ends;
}

// The text of the refusal, "" if there is none; what is refused must be as it was.
std::string refusal_of(void (*by)(unique_fd&), unique_fd& fd) {
    int const number = fd.get();
    int const flags = ::fcntl(number, F_GETFL);
    std::string text;
    try {
        by(fd);
    } catch (std::invalid_argument const& failure) {
        text = failure.what();
        check(fd.get() == number && ::fcntl(number, F_GETFL) == flags, "it is left alone");
    }
    return text;
}

std::string mismatch(char const* of, int expected, int got) {
    return std::string(of) + " mismatch: expected " + std::to_string(expected) + ", got " + std::to_string(got);
}

} // namespace

TEST_CASE("KS15, KS12: every kind of socket is adopted, and then does not block and is closed on exec") {
    run_with_sockets([] {
        for (kind const& each : kinds) {
            connected_ends ends;
            if (each.must_be == state::connected)
                ends = make_connected(each.family, each.type);
            else
                ends.here = each.must_be == state::bound ? make_bound(each.family, each.type)
                                                         : make_fresh(each.family, each.type);
            check(refusal_of(each.adopt, ends.here).empty(), each.name);
        }
    });
}

TEST_CASE("KS15: what a kind of socket is not made for is refused with the reason, and left alone") {
    run_with_sockets([] {
        for (kind const& each : kinds) {
            auto const refuses = [&each](unique_fd fd, std::string const& why) {
                std::string const text = refusal_of(each.adopt, fd);
                check(text == why, std::string(each.name) + ": " + why + ", and not '" + text + "'");
            };
            int const other_family = each.family == AF_UNIX ? AF_INET : AF_UNIX;
            int const other_type = each.type == SOCK_STREAM ? SOCK_DGRAM : SOCK_STREAM;
            refuses(std::move(weft::test::open_some(1).front()),
                    "the file descriptor does not refer to a socket");
            refuses(make_fresh(other_family, each.type), mismatch("address family", each.family, other_family));
            refuses(make_fresh(each.family, other_type), mismatch("socket type", each.type, other_type));
            if (each.must_be == state::connected)
                refuses(make_bound(each.family, each.type), "the socket must be connected");
            if (each.must_be == state::bound)
                refuses(make_fresh(each.family, each.type), "the socket must be bound to a local address");
        }
    });
}

TEST_CASE("KS15: a connected socket is no listener, and says so") {
    run_with_sockets([] {
        connected_ends ends = make_connected(AF_INET, SOCK_STREAM);
        check(refusal_of(adopt<weft::socket_listener<weft::socket_stream>>, ends.here) ==
                  "the socket is connected: it cannot listen",
              "the reason");
    });
}

TEST_CASE("KS15, KL7: an adopted UNIX listener accepts, whether it listened before or was only bound") {
    run_with_sockets([] {
        for (bool const listens : {true, false}) {
            unique_fd fd = make_bound(AF_UNIX, SOCK_STREAM);
            if (listens) check(::listen(fd.get(), 5) == 0, "it listens");
            auto listener = weft::socket_listener<weft::unix_socket_stream>::from_socket(fd);
            auto const local = listener.extra(weft::socket_attribute::local_address);
            check(local.is_abstract(), "its name is the kernel's choice");
            auto client = weft::connect_unix(std::string(1, '\0') + local.path());
            weft::unix_socket_stream accepted = listener.accept();
            accepted.send("hello");
            check(client.receive() == "hello", "greeted");
        }
    });
}

TEST_CASE("KS12: no socket of ours blocks or stays open on exec, however it came about") {
    run_with_sockets([] {
        weft::test::socket_directory const directory;
        weft::path const name = directory / "socket";
        auto listener = weft::create_unix_listener(name);
        check_flags(listener, "a UNIX listener");
        check_flags(weft::connect_unix(name), "a connected UNIX stream");
        check_flags(listener.accept(), "an accepted UNIX stream");
        auto const listeners = weft::create_tcp_listener();
        for (auto const& each : listeners.listeners())
            check_flags(*each, "a TCP listener");
        auto const datagrams = weft::create_udp_socket({.local_host = "127.0.0.1"});
        check_flags(datagrams, "UDP");
        check_flags(weft::create_connected_udp_socket("127.0.0.1", weft::test::port_of(datagrams)), "connected UDP");
        weft::path const at = directory / "datagrams";
        auto const server = weft::create_unix_datagram_socket({.local_path = at});
        check_flags(server, "UNIX datagrams");
        check_flags(weft::create_connected_unix_datagram_socket(at), "connected UNIX datagrams");
    });
}

TEST_SUITE_END();
