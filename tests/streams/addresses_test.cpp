#include <weft/streams/tcp.hpp>

#include "sockets.hpp"
#include "support/child_process.hpp"

#include <weft/io/error.hpp>
#include <weft/io/readiness.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/run.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

// Names with several addresses and ports that are taken, in a child with a network of its own: only
// there they are known. Where the system does not allow that, the tests say so and check nothing.

TEST_SUITE_BEGIN("streams.addresses");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::port_of;

constexpr char no_network[] = "no network of its own";
constexpr char all_well[] = "all is well";

bool set_loopback_up() {
    weft::unique_fd const any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ::ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return ::ioctl(any.get(), SIOCSIFFLAGS, &request) == 0;
}

bool write_file(char const* name, char const* text) {
    std::ofstream file(name);
    file << text << std::flush;
    return bool(file);
}

bool set_hosts() {
    char name[] = "/tmp/weft-hosts.XXXXXX";
    weft::unique_fd const made(::mkstemp(name));
    bool const done =
        write_file(name, "127.0.0.1 localhost\n::1 twofaced\n127.0.0.1 twofaced\n") &&
        ::fchmod(made.get(), 0644) == 0 &&
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        ::mount(name, "/etc/hosts", nullptr, MS_BIND, nullptr) == 0;
    ::unlink(name);
    return done;
}

// Before there are threads. Two ports are left for whoever asks for any.
void run_in_network(void (*body)()) {
    if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 || !set_loopback_up() || !set_hosts() ||
        !write_file("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001"))
        return static_cast<void>(std::puts(no_network));
    weft::run([body] { weft::fail_after(20s, body); });
    std::puts(all_well);
}

void rotate() {
    auto const taken = weft::create_tcp_listener({.local_host = "::1", .local_port = 40000});
    auto const both = weft::create_tcp_listener({.local_host = "twofaced"});
    check(both.listeners().size() == 2, "two addresses");
    for (auto const& each : both.listeners())
        check(port_of(*each) == 40001, "the port that both have");
}

void find_no_port() {
    auto const one = weft::create_tcp_listener({.local_host = "::1", .local_port = 40000});
    auto const other = weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = 40001});
    try {
        weft::create_tcp_listener({.local_host = "twofaced"});
    } catch (std::system_error const& failure) {
        check(failure.code() == std::errc::address_in_use, "the kind of error");
        check(std::string(failure.what()).find("2 listeners") != std::string::npos, "its text");
        std::size_t causes = 0;
        try {
            std::rethrow_if_nested(failure);
        } catch (weft::exception_group const& group) {
            causes = group.exceptions().size();
        }
        check(causes == 2, "a cause for each attempt");
        return;
    }
    check(false, "there is no port for both");
}

// A listener whose backlog is full: the kernel drops who else asks, and connecting takes for ever.
class black_hole {
public:
    static constexpr std::uint16_t port = 30000;

    black_hole() : listener_(make_socket()), waiting_(make_socket()) {
        check(::bind(listener_.get(), address(), sizeof address_) == 0 &&
                  ::listen(listener_.get(), 0) == 0,
              "a listener");
        ::connect(waiting_.get(), address(), sizeof address_); // for one there is room
        weft::wait_writable(waiting_.get());
    }

private:
    static weft::unique_fd make_socket() {
        return weft::unique_fd(::socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    }
    ::sockaddr const* address() const { return reinterpret_cast<::sockaddr const*>(&address_); }

    ::sockaddr_in6 address_{AF_INET6, htons(port), 0, in6addr_loopback, 0};
    weft::unique_fd listener_;
    weft::unique_fd waiting_;
};

void wait_before_the_next_attempt() {
    black_hole const hole;
    auto const listener =
        weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = hole.port});
    auto const before = std::chrono::steady_clock::now();
    auto const stream =
        weft::connect_tcp("twofaced", hole.port, {.happy_eyeballs_delay = 200ms});
    check(std::chrono::steady_clock::now() - before >= 200ms, "not before the delay");
    check(!stream.extra(weft::socket_attribute::remote_address).ip().is_v6(), "the second one");
    bool const cut_short =
        !weft::move_on_after(50ms, [&] { weft::connect_tcp("::1", hole.port); });
    check(cut_short, "alone it takes for ever");
}

void go_on_after_a_failure() {
    auto const listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    auto const stream =
        weft::connect_tcp("twofaced", port_of(listener), {.happy_eyeballs_delay = 1h});
    check(!stream.extra(weft::socket_attribute::remote_address).ip().is_v6(), "the second one");
}

void prefer_ipv6() {
    auto const listener = weft::create_tcp_listener({.local_port = 30000});
    auto const stream = weft::connect_tcp("twofaced", 30000, {.happy_eyeballs_delay = 1h});
    check(stream.extra(weft::socket_attribute::remote_address).ip().is_v6(), "IPv6 is first");
}

void tell_all_failures() {
    try {
        weft::connect_tcp("twofaced", 30000);
    } catch (weft::connection_failed const& failure) {
        std::string causes;
        try {
            std::rethrow_if_nested(failure);
        } catch (weft::exception_group const& group) {
            causes = group.what();
        }
        std::size_t const first = causes.find("[::1]:30000");
        std::size_t const second = causes.find("127.0.0.1:30000");
        check(first < second && second != std::string::npos, "in order: " + causes);
        return;
    }
    check(false, "nobody listens");
}

weft::test::child_program const programs[] = {
    {"rotate", [] { run_in_network(rotate); }},
    {"find no port", [] { run_in_network(find_no_port); }},
    {"wait before the next attempt", [] { run_in_network(wait_before_the_next_attempt); }},
    {"go on after a failure", [] { run_in_network(go_on_after_a_failure); }},
    {"prefer IPv6", [] { run_in_network(prefer_ipv6); }},
    {"tell all failures", [] { run_in_network(tell_all_failures); }},
};

void expect_well(char const* program) {
    auto const end = weft::test::run_child(program);
    if (end.says(no_network)) {
        MESSAGE("skipped: the system allows no network of its own");
        return;
    }
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says(all_well));
}

} // namespace

TEST_CASE("KL4: where the port is taken on one address, another one chooses") {
    expect_well("rotate");
}

TEST_CASE("KL4: without a port for all addresses the error says so, with every cause") {
    expect_well("find no port");
}

TEST_CASE("KC3, KC4: the next attempt starts after the delay; the one that hangs is cancelled") {
    expect_well("wait before the next attempt");
}

TEST_CASE("KC3: a failed attempt starts the next one at once") {
    expect_well("go on after a failure");
}

TEST_CASE("KC2: the first IPv6 address comes first") {
    expect_well("prefer IPv6");
}

TEST_CASE("KC5: when all fail, all causes are told, in order of failure") {
    expect_well("tell all failures");
}

TEST_SUITE_END();
