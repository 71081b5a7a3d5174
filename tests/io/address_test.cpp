#include <weft/io/address.hpp>

#include <weft/io/detail/raw_address.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_set>

#include <sys/socket.h>

TEST_SUITE_BEGIN("io.address");

using weft::ip_address;
using weft::socket_address;

TEST_CASE("an IP address is read and written in its shortest form") {
    for (char const* const text : {"0.0.0.0", "127.0.0.1", "255.255.255.255", "::", "::1",
                                   "2001:db8::1", "fe80::1%2", "::ffff:192.0.2.1"})
        CHECK(ip_address::parse(text).to_string() == text);
    CHECK(ip_address::parse("0:0:0:0:0:0:0:1").to_string() == "::1");
    CHECK(ip_address::parse("FE80::1%lo").scope() != 0);
    CHECK(ip_address::parse("1.2.3.4").family() == AF_INET);
    CHECK(ip_address::parse("::1").family() == AF_INET6);
}

TEST_CASE("what is no IP address is refused") {
    for (std::string const text :
         {"", "1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "localhost", "1.2.3.4%1", "::1%",
          "::1%no-such-interface", ":::", "::1 ", " 1.2.3.4", "[::1]"})
        CHECK_THROWS_AS(ip_address::parse(text), std::invalid_argument);
    CHECK_THROWS_AS(ip_address::parse(std::string("1.2.3.4\0", 8)), std::invalid_argument);
}

TEST_CASE("a port is an integer from 0 to 65535; what is none is refused, and named") {
    auto const port_of = [](auto number) { return socket_address(ip_address(), number).port(); };
    CHECK(port_of(std::uint16_t(80)) == 80);
    CHECK(port_of(0) == 0);
    CHECK(port_of(65535L) == 65535);
    CHECK_THROWS_AS(port_of(65536), std::invalid_argument);
    CHECK_THROWS_AS(port_of(-1), std::invalid_argument);
    CHECK_THROWS_AS(port_of(std::numeric_limits<std::uint64_t>::max()), std::invalid_argument);
    CHECK_THROWS_WITH(port_of(65616), "65616 is no port: those are 0 to 65535");
    std::atomic<int> const elsewhere = 8080; // and whatever else was an integer to functions
    enum old_style { some_port = 7 };
    CHECK(weft::port_number(elsewhere) == 8080);
    CHECK(weft::port_number(some_port) == 7);
    static_assert(weft::port_number(443) == 443);
    static_assert(!std::is_convertible_v<double, weft::port_number>);
    static_assert(!std::is_convertible_v<char const*, weft::port_number>);
}

TEST_CASE("addresses compare and hash by value") {
    auto const first = ip_address::parse("fe80::1%1");
    auto const second = ip_address::parse("fe80::1%2");
    CHECK(first != second);
    CHECK(first < second);
    CHECK(std::set<ip_address>{second, first, first}.size() == 2);
    CHECK(std::unordered_set<ip_address>{second, first, first}.size() == 2);
    CHECK(std::unordered_set<socket_address>{{first, 1}, {first, 2}, {first, 1}}.size() == 2);
    CHECK(socket_address::unix_path("x") != socket_address::unix_abstract("x"));
}

TEST_CASE("the text of a socket address gives the same address again") {
    for (socket_address const& address :
         {socket_address(), socket_address(ip_address::parse("192.0.2.1"), 80),
          socket_address(ip_address::parse("fe80::1%2"), 65535),
          socket_address::unix_path("/run/x:y.socket"), socket_address::unix_path("@x"),
          socket_address::unix_abstract(std::string("a\0b", 3)), socket_address::parse("unix:")})
        CHECK(socket_address::parse(address.to_string()) == address);
    CHECK(socket_address(ip_address::parse("::1"), 80).to_string() == "[::1]:80");
}

TEST_CASE("what is no socket address is refused") {
    for (std::string const text :
         {"1.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "1.2.3.4:-1", "::1:80",
          "[1.2.3.4]:80", "[::1]", "host:80", ":80", "[]:80"})
        CHECK_THROWS_AS(socket_address::parse(text), std::invalid_argument);
    CHECK_THROWS_AS(socket_address::unix_path(std::string(108, 'x')), std::invalid_argument);
    CHECK_THROWS_AS(socket_address::unix_path(""), std::invalid_argument);
    CHECK_THROWS_AS(socket_address::unix_path(std::string("a\0b", 3)), std::invalid_argument);
    CHECK_THROWS_AS(socket_address::unix_abstract(""), std::invalid_argument);
    CHECK_THROWS_AS(socket_address().ip(), std::logic_error);
    CHECK_THROWS_AS(socket_address::unix_path("x").port(), std::logic_error);
    CHECK_THROWS_AS(socket_address(ip_address(), 1).path(), std::logic_error);
}

TEST_CASE("the kernel's form gives the same address again") {
    for (socket_address const& address :
         {socket_address(ip_address::parse("192.0.2.1"), 80),
          socket_address(ip_address::parse("fe80::1%2"), 443), socket_address::unix_path("x"),
          socket_address::unix_path(std::string(107, 'x')), socket_address::unix_abstract("x"),
          socket_address::unix_abstract(std::string(107, 'x')), socket_address::parse("unix:")})
        CHECK(weft::detail::raw_address(address).to_address() == address);
}

TEST_SUITE_END();
