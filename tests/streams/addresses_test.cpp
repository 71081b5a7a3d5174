#include <weft/streams/tcp.hpp>

#include "sockets.hpp"
#include "support/child_process.hpp"
#include "support/open_descriptors.hpp"

#include <weft/io/error.hpp>
#include <weft/io/readiness.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/udp.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <linux/if_addr.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

// Names with several addresses and ports that are taken, in a child with a network of its own: only
// there they are known. Where the system does not allow that, the tests say so and check nothing; in CI (where
// $CI is set) they fail.

TEST_SUITE_BEGIN("streams.addresses");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::open_descriptors;
using weft::test::port_of;

constexpr char no_network[] = "no network of its own";
constexpr char all_well[] = "all is well";
constexpr char local_ports[] = "/proc/sys/net/ipv4/ip_local_port_range";

bool write_file(char const* name, char const* text) {
    std::ofstream file(name);
    file << text << std::flush;
    return bool(file);
}

// Who is not root becomes it in a user namespace.
bool leave_network() {
    std::string const user = std::to_string(::geteuid()), group = std::to_string(::getegid());
    if (user == "0") return ::unshare(CLONE_NEWNET | CLONE_NEWNS) == 0;
    return ::unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) == 0 &&
           write_file("/proc/self/setgroups", "deny") &&
           write_file("/proc/self/uid_map", ("0 " + user + " 1").c_str()) &&
           write_file("/proc/self/gid_map", ("0 " + group + " 1").c_str());
}

bool set_loopback_up() {
    weft::unique_fd const any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ::ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return ::ioctl(any.get(), SIOCSIFFLAGS, &request) == 0;
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
    if (!leave_network() || !set_loopback_up() || !set_hosts() ||
        !write_file(local_ports, "40000 40001"))
        return static_cast<void>(std::puts(no_network));
    weft::run({.workers = 4}, [body] { weft::fail_after(20s * weft::test::slowdown, body); });
    std::puts(all_well);
}

void rotate() {
    auto const taken = weft::create_tcp_listener({.local_host = "::1", .local_port = 40000});
    auto const both = weft::create_tcp_listener({.local_host = "twofaced"});
    check(both.listeners().size() == 2, "two addresses");
    for (auto const& each : both.listeners())
        check(port_of(*each) == 40001, "the port that both have");
}

void listen_in_order() {
    auto const both = weft::create_tcp_listener({.local_host = "twofaced"}); // the IPv6 one is its first
    check(both.listeners().size() == 2, "two addresses");
    check(both.listeners().front()->extra(weft::socket_attribute::family) == AF_INET, "IPv4");
    check(both.listeners().back()->extra(weft::socket_attribute::family) == AF_INET6, "before IPv6");
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
        weft::connect_tcp("twofaced", 30000, {.happy_eyeballs_delay = 1h}); // the second after the first has failed
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

bool add_address(char const* text, std::uint8_t prefix) {
    struct { // the kernel's in6_ifreq: its header and glibc's do not go together
        ::in6_addr address;
        std::uint32_t prefix;
        int interface;
    } request{};
    std::ranges::copy(weft::ip_address::parse(text).octets(), request.address.s6_addr);
    request.prefix = prefix;
    request.interface = int(::if_nametoindex("lo"));
    weft::unique_fd const any(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return ::ioctl(any.get(), SIOCSIFADDR, &request) == 0;
}

// The kernel takes a moment to find that nobody else has it.
bool is_tentative(std::string const& octets) {
    std::ifstream file("/proc/net/if_inet6");
    std::string address, index, prefix, scope, flags, name;
    while (file >> address >> index >> prefix >> scope >> flags >> name)
        if (address == octets) return (std::stoul(flags, nullptr, 16) & IFA_F_TENTATIVE) != 0;
    throw std::runtime_error("no such address");
}

void listen_link_locally() {
    check(add_address("fe80::5", 64), "an address of the interface");
    while (is_tentative("fe800000000000000000000000000005"))
        weft::lowlevel::checkpoint();
    for (std::string const& scope : {std::string("lo"), std::to_string(::if_nametoindex("lo"))}) {
        auto const listener = weft::create_tcp_listener({.local_host = "fe80::5%" + scope});
        auto const local = listener.extra(weft::socket_attribute::local_address);
        check(local.ip().scope() == ::if_nametoindex("lo"), "bound with its scope");
        check(listener.listeners().size() == 1, "one socket");
        auto const stream = weft::connect_tcp("fe80::5%" + scope, port_of(listener));
        check(stream.extra(weft::socket_attribute::remote_address) == local, "reached there");
    }
    check_throws<std::system_error>([] { weft::create_tcp_listener({.local_host = "fe80::5"}); },
                                    "without a scope it is nowhere");
}

void find_no_way() {
    bool unreachable = false;
    try {
        weft::connect_tcp("192.0.2.1", 80);
    } catch (weft::connection_failed const& failure) {
        unreachable = failure.code() == std::errc::network_unreachable &&
                      std::string(failure.what()).find("192.0.2.1 port 80") != std::string::npos;
    }
    check(unreachable, "it says so and names the place");
    check_throws<std::system_error>([] { weft::create_connected_udp_socket("192.0.2.1", 80); },
                                    "nor by datagrams");
    auto datagrams = weft::create_udp_socket({.family = AF_INET});
    check_throws<std::system_error>([&] { datagrams.sendto("x", "192.0.2.1", 80); }, "sending");
    datagrams.sendto("x", "127.0.0.1", port_of(datagrams));
    check(datagrams.receive().data == "x", "the socket goes on");
}

// Both addresses answer at the same moment, on several workers.
void win_once() {
    check(write_file(local_ports, "32768 60999"), "a port for each attempt");
    auto listener = weft::create_tcp_listener({.local_port = 30000});
    std::atomic<int> silent = 0;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            listener.serve([&](weft::socket_stream client) {
                try {
                    client.send(client.receive());
                } catch (weft::end_of_stream const&) { // lost, and closed
                    ++silent;
                } catch (weft::broken_resource_error const&) {
                    ++silent;
                }
            });
        });
        for (int round = 0; round < 200; ++round) {
            std::ptrdiff_t const before = open_descriptors();
            auto stream = weft::connect_tcp("twofaced", 30000, {.happy_eyeballs_delay = 0ns});
            stream.send("x");
            check(stream.receive() == "x", "the winner is connected");
            stream.close();
            while (open_descriptors() > before) // handlers on their way out
                weft::lowlevel::checkpoint();
        }
        group.cancel();
    });
    std::printf("%d attempts lost when they were connected\n", silent.load());
}

// The network here: its only addresses are loopback's.
void bind_to_loopback_alone() {
    for (auto const& [family, host] : {std::pair(AF_INET, "127.0.0.1"), std::pair(AF_INET6, "::1")}) {
        auto anywhere = weft::create_udp_socket({.family = family});
        auto here = weft::create_udp_socket({.family = family, .local_host = host});
        here.sendto("x", host, port_of(anywhere));
        check(anywhere.receive().data == "x", "by either");
    }
}

void bind_to_one_family() {
    auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
    auto client =
        weft::create_connected_udp_socket("twofaced", port_of(server), {.local_host = "127.0.0.1"});
    client.send("x");
    check(server.receive().data == "x", "of its two addresses that of the local one's family");
}

void connect_within_one_family() {
    for (weft::ip_address const local : {weft::ip_address::parse("127.0.0.1"), weft::ip_address::parse("::1")}) {
        std::string const attempt = "connect to " + weft::socket_address(local, 30000).to_string();
        int attempts = 0; // two for IPv4: asked for that, glibc's reader of /etc/hosts makes 127.0.0.1 of ::1
        try {
            weft::connect_tcp("twofaced", 30000, {.local_host = local});
        } catch (weft::connection_failed const& failure) { // nobody listens
            try {
                std::rethrow_if_nested(failure);
            } catch (weft::exception_group const& causes) {
                causes.handle([&](std::system_error const& cause) {
                    check(std::string(cause.what()).starts_with(attempt), cause.what());
                    ++attempts;
                });
            }
        }
        check(attempts > 0, attempt);
    }
}

weft::test::child_program const programs[] = {
    {"rotate", [] { run_in_network(rotate); }},
    {"listen in order", [] { run_in_network(listen_in_order); }},
    {"find no port", [] { run_in_network(find_no_port); }},
    {"wait before the next attempt", [] { run_in_network(wait_before_the_next_attempt); }},
    {"go on after a failure", [] { run_in_network(go_on_after_a_failure); }},
    {"prefer IPv6", [] { run_in_network(prefer_ipv6); }},
    {"tell all failures", [] { run_in_network(tell_all_failures); }},
    {"listen link-locally", [] { run_in_network(listen_link_locally); }},
    {"find no way", [] { run_in_network(find_no_way); }},
    {"bind to loopback alone", [] { run_in_network(bind_to_loopback_alone); }},
    {"win once", [] { run_in_network(win_once); }},
    {"bind to one family", [] { run_in_network(bind_to_one_family); }},
    {"connect within one family", [] { run_in_network(connect_within_one_family); }},
};

void expect_well(char const* program) {
    auto const end = weft::test::run_child(program);
    if (end.says(no_network)) {
        MESSAGE("skipped: the system allows no network of its own");
        CHECK(std::getenv("CI") == nullptr);
        return;
    }
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says(all_well));
}

} // namespace

TEST_CASE("KL1: of the listeners for a name those of IPv4 come first") {
    expect_well("listen in order");
}

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

TEST_CASE(
    "KC11, KC4: of attempts that succeed at the same time one wins, and the others are closed") {
    expect_well("win once");
}

TEST_CASE("KC5: a network that there is no way to is an error that says so") {
    expect_well("find no way");
}

TEST_CASE("KD1: a socket is bound also where there are no addresses but those of loopback") {
    expect_well("bind to loopback alone");
}

TEST_CASE("KL3: a link-local address is bound with its scope") {
    expect_well("listen link-locally");
}

TEST_CASE("KC7: with a local address only those of the host's that have its family are tried") {
    expect_well("connect within one family");
}

TEST_CASE("KD2: the peer of a socket that is bound has an address of the same family") {
    expect_well("bind to one family");
}

TEST_SUITE_END();
