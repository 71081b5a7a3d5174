#include "faults.hpp"
#include "support/open_descriptors.hpp"

#include <weft/io/error.hpp>
#include <weft/io/resolver.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/tcp.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <system_error>

#include <netdb.h>
#include <sys/socket.h>

TEST_SUITE_BEGIN("network.names");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::faults;
using weft::test::open_descriptors;
using weft::test::run_over_network;

template <class Call> std::optional<std::error_code> error_of(Call const& call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return failure.code();
    }
    return std::nullopt;
}

std::error_code resolver_error(int code) { return {code, weft::resolver_category()}; }

} // namespace

TEST_CASE("KN3: a name with addresses of both families gives both") {
    run_over_network([] {
        auto const found = weft::getaddrinfo("dual.test", "80", {.type = SOCK_STREAM});
        auto const has = [&found](int family) {
            return std::ranges::count(found, family, &weft::address_info::family) == 1;
        };
        check(found.size() == 2 && has(AF_INET) && has(AF_INET6), "one of each");
        auto const one =
            weft::getaddrinfo("dual.test", "80", {.family = AF_INET, .type = SOCK_STREAM});
        check(one.size() == 1 && one[0].address.to_string() == "127.0.0.1:80", "as was asked");
    });
}

TEST_CASE("KN2: a name beyond ASCII reaches the name server encoded") {
    run_over_network([] {
        auto const found = weft::getaddrinfo("Straße.test", "", {.type = SOCK_STREAM});
        check(found.size() == 1 && found[0].address.ip().to_string() == "127.0.0.1", "its address");
    });
}

TEST_CASE("KN4: names that do not exist, that have no address, that nobody answers for") {
    run_over_network([] {
        auto const connect = [](char const* host) {
            return error_of([host] { weft::connect_tcp(host, 80); });
        };
        check(connect("none.test") == resolver_error(EAI_NONAME), "there is none");
        check(connect("text.test") == resolver_error(EAI_NODATA), "it has no address");
        auto const refused = connect("weft.example");
        check(refused && refused->category() == weft::resolver_category(), "the server refuses");
        faults const lost("udp dport 53 drop");
        check(connect("dual.test") == resolver_error(EAI_AGAIN), "the server is silent");
    });
}

TEST_CASE("KC5: a name that resolves to nothing usable") {
    run_over_network([] {
        bool refused = false;
        try {
            weft::connect_tcp("unusable.test", 80);
        } catch (
            weft::connection_failed const& failure) { // what errno says differs between kernels
            refused = std::string(failure.what()).find("unusable.test") != std::string::npos;
        }
        check(refused, "it names the host");
    });
}

TEST_CASE("KL1: of a name's addresses those are listened on that this host has") {
    run_over_network([] {
        auto const listener = weft::create_tcp_listener({.local_host = "partly.test"});
        check(listener.listeners().size() == 1, "one of two");
        check(error_of([] { weft::create_tcp_listener({.local_host = "elsewhere.test"}); }) ==
                  std::error_code(EADDRNOTAVAIL, std::system_category()),
              "none");
    });
}

TEST_CASE("KN1, KN6: a name server that is silent keeps nobody from anything, nor from leaving") {
    run_over_network([] {
        weft::getaddrinfo("dual.test", ""); // what the resolver opens once
        std::ptrdiff_t const before = open_descriptors();
        faults const lost("udp dport 53 drop");
        weft::time_point const begin = weft::current_time();
        weft::with_task_group([&](weft::task_group& group) {
            for (int each = 0; each < 100; ++each) // more than may look up at once
                group.start_soon([] { weft::getaddrinfo("dual.test", ""); });
            weft::to_thread::run_sync([] {});
            auto const numeric = weft::getaddrinfo("127.0.0.1", "80");
            check(!numeric.empty(), "numbers need no server");
            group.cancel("nobody waits for it");
        });
        check(weft::current_time() - begin < 900ms * weft::test::slowdown,
              "before the resolver gave up");
        // The threads that were left alone have sockets: each until its second is over.
        while (open_descriptors() > before)
            weft::sleep(10ms);
    });
}

TEST_SUITE_END();
