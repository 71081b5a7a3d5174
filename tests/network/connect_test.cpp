#include "faults.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/tcp.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <string>
#include <system_error>
#include <vector>

#include <sys/socket.h>

TEST_SUITE_BEGIN("network.connect");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::faults;
using weft::test::kernel_setting;
using weft::test::port_text;
using weft::test::run_over_network;

using tcp_listener = weft::multi_listener<weft::socket_stream>;

tcp_listener listen_on(std::string const& host) {
    return weft::create_tcp_listener({.local_host = host});
}

std::uint16_t port_of(tcp_listener const& listener) {
    return listener.extra(weft::socket_attribute::local_port);
}

bool is_ipv4(weft::socket_stream const& stream) {
    return stream.extra(weft::socket_attribute::remote_address).family() == AF_INET;
}

// The attempts give up by themselves only after the kernel's retries: three seconds.
struct impatient_kernel {
    kernel_setting retries{"ipv4/tcp_syn_retries", 1};
    kernel_setting linear{"ipv4/tcp_syn_linear_timeouts", 0};
};

void echo(weft::socket_stream client) {
    std::array<std::byte, 4096> chunk;
    while (std::size_t const count = client.receive_some(chunk))
        client.send(std::span(chunk).first(count));
}

} // namespace

TEST_CASE("KC3: where IPv6 swallows everything, connecting takes the delay and not more") {
    run_over_network([] {
        tcp_listener const listener = listen_on("127.0.0.1");
        faults const lost("ip6 nexthdr tcp drop");
        weft::time_point const begin = weft::current_time();
        auto const stream =
            weft::connect_tcp("dual.test", port_of(listener), {.happy_eyeballs_delay = 100ms});
        weft::duration const took = weft::current_time() - begin;
        check(is_ipv4(stream), "the one that answers");
        check(took >= 100ms, "the delay was waited for");
        check(took < 10s, "the kernel's retries, which take two minutes, were not");
    });
}

TEST_CASE("KC3: where IPv6 refuses, the next attempt does not wait for the delay") {
    run_over_network([] {
        tcp_listener const listener = listen_on("127.0.0.1");
        faults const refused("meta nfproto ipv6 tcp dport " + port_text(listener) +
                             " reject with tcp reset");
        weft::time_point const begin = weft::current_time();
        auto const stream =
            weft::connect_tcp("dual.test", port_of(listener), {.happy_eyeballs_delay = 15s});
        check(is_ipv4(stream), "the one that answers");
        check(weft::current_time() - begin < 10s, "at once");
    });
}

TEST_CASE("KC2: the first IPv4 address is tried second, however many IPv6 ones there are") {
    run_over_network(
        [] {
            tcp_listener const listener = listen_on("0.0.0.0");
            faults const lost("ip6 nexthdr tcp drop");
            weft::time_point const begin = weft::current_time();
            auto const stream = weft::connect_tcp("many.test", port_of(listener), {.happy_eyeballs_delay = 3s});
            check(is_ipv4(stream), "the one that answers");
            check(weft::current_time() - begin < 6s, "one delay, not two");
        },
        {2});
}

TEST_CASE("KC5: what each attempt met is in the error") {
    run_over_network([] {
        tcp_listener const listener = listen_on("127.0.0.1");
        faults const unreachable("meta nfproto ipv6 tcp dport " + port_text(listener) +
                                 " reject with icmpv6 type admin-prohibited\n"
                                 "meta nfproto ipv4 tcp dport " +
                                 port_text(listener) + " reject with icmp type host-unreachable");
        std::vector<int> errors;
        std::string text;
        try {
            weft::connect_tcp("dual.test", port_of(listener));
        } catch (weft::connection_failed const& failure) {
            text = failure.what();
            try {
                std::rethrow_if_nested(failure);
            } catch (weft::exception_group const& causes) {
                causes.handle([&](std::system_error const& cause) {
                    errors.push_back(cause.code().value());
                });
            }
        }
        std::ranges::sort(errors); // the kernel listens to ICMP from a SYN's second try on
        check(errors == std::vector{EACCES, EHOSTUNREACH}, "one of each");
        check(text.find("dual.test") != std::string::npos, "it names the host");
    });
}

TEST_CASE("KC5: where nobody answers at all, the kernel's patience decides") {
    impatient_kernel const kernel;
    run_over_network(
        [] {
            tcp_listener const listener = listen_on("127.0.0.1");
            faults const lost("meta l4proto tcp drop");
            bool timed_out = false;
            try {
                weft::connect_tcp("dual.test", port_of(listener));
            } catch (weft::connection_failed const& failure) {
                timed_out = failure.code() == std::errc::timed_out;
            }
            check(timed_out, "the error says so");
        },
        {2});
}

TEST_CASE("KC6: an attempt that nobody answers is cancelled at once") {
    run_over_network([] {
        tcp_listener const listener = listen_on("127.0.0.1");
        faults const lost("meta l4proto tcp drop");
        weft::time_point const begin = weft::current_time();
        bool const connected =
            weft::move_on_after(50ms, [&] { weft::connect_tcp("dual.test", port_of(listener)); });
        check(!connected, "nobody answers");
        check(weft::current_time() - begin < 10s, "long before the kernel gives up");
    });
}

TEST_CASE("X10: a server gets everybody, though every tenth packet is lost") {
    run_over_network(
        [] {
            tcp_listener listener = listen_on("127.0.0.1");
            faults const lossy("meta l4proto tcp numgen inc mod 10 < 1 drop");
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { listener.serve(echo); });
                weft::with_task_group([&](weft::task_group& clients) {
                    for (int each = 0; each < 40; ++each)
                        clients.start_soon([&, each] {
                            auto client = weft::connect_tcp("127.0.0.1", port_of(listener));
                            std::string const word = std::to_string(each);
                            client.send(word);
                            client.send_eof();
                            std::string answer;
                            for (weft::bytes const& part : client)
                                answer += part;
                            check(answer == word, "its own answer");
                        });
                });
                group.cancel("all have been there");
            });
        },
        {2});
}

TEST_SUITE_END();
