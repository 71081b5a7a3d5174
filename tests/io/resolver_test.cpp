#include <weft/io/resolver.hpp>

#include "support/run_test.hpp"

#include <weft/io/detail/host_name.hpp>
#include <weft/runtime/cancel_scope.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <system_error>

#include <netdb.h>
#include <sys/socket.h>

TEST_SUITE_BEGIN("io.resolver");

using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

TEST_CASE("KN1: numbers are answered without a thread") {
    run_test([] {
        unsigned const threads = weft::test::count_threads();
        auto const found = weft::getaddrinfo("fe80::1%1", "80", {.type = SOCK_STREAM});
        check(found.size() == 1 && found.front().address.to_string() == "[fe80::1%1]:80", "it");
        struct host {
            int family;
            char const* any;
            char const* loopback;
        };
        for (host const& of : {host{AF_INET, "0.0.0.0:80", "127.0.0.1:80"}, host{AF_INET6, "[::]:80", "[::1]:80"}}) {
            auto const gives = [&of](int flags, char const* address) {
                auto const all =
                    weft::getaddrinfo("", "80", {.family = of.family, .type = SOCK_STREAM, .flags = flags});
                check(all.size() == 1 && all.front().address.to_string() == address, address);
            };
            gives(AI_PASSIVE, of.any);
            gives(0, of.loopback);
        }
        for (weft::address_info const& each : weft::getaddrinfo("", ""))
            check(each.address.port() == 0, "no port");
        check(weft::getnameinfo(found.front().address, NI_NUMERICHOST | NI_NUMERICSERV).service ==
                  "80",
              "back again");
        check(weft::test::count_threads() <= threads, "no thread");
    });
}

TEST_CASE("KN1, KN3: names are looked up") {
    run_test({.seeds = {}}, [] {
        auto const found = weft::getaddrinfo("localhost", "80", {.type = SOCK_STREAM});
        check(!found.empty(), "localhost");
        for (weft::address_info const& each : found) {
            bool const is_local = each.address.ip() == weft::ip_address::parse("127.0.0.1") ||
                                  each.address.ip() == weft::ip_address::parse("::1");
            check(is_local && each.address.port() == 80, each.address.to_string());
            check(each.type == SOCK_STREAM && each.family == each.address.family(), "its kind");
            check(each.canonname.empty(), "not asked for");
        }
        check(!weft::getnameinfo(found.front().address).host.empty(), "a name");
    });
}

TEST_CASE("KN1: a service's name is looked up, be the host a name, a number or none") {
    run_test({.seeds = {}}, [] {
        for (char const* const host : {"localhost", "127.0.0.1", ""}) {
            auto const found = weft::getaddrinfo(host, "http", {.type = SOCK_STREAM});
            check(!found.empty(), host);
            for (weft::address_info const& each : found)
                check(each.address.port() == 80, each.address.to_string());
        }
    });
}

TEST_CASE("KN3: the canonical name comes with the first answer, if it was asked for") {
    run_test({.seeds = {}}, [] {
        auto const found = weft::getaddrinfo("localhost", "80", {.flags = AI_CANONNAME});
        check(found.size() > 1, "one for each type"); // of sockets
        check(!found.front().canonname.empty(), "the first");
        check(found.back().canonname.empty(), "no other one");
        auto const number = weft::getaddrinfo("127.0.0.1", "80", {.flags = AI_CANONNAME});
        check(number.front().canonname == "127.0.0.1", "as it was given");
    });
}

TEST_CASE("KN5: an address has a name and a service, an address with a scope as well") {
    run_test([] {
        constexpr int numeric = NI_NUMERICHOST | NI_NUMERICSERV;
        weft::socket_address const link_local(weft::ip_address::parse("fe80::1%1"), 443);
        weft::name_info const info = weft::getnameinfo(link_local, numeric);
        check(info.host.starts_with("fe80::1%") && info.service == "443", info.host);
        check(weft::ip_address::parse(info.host) == link_local.ip(), "the same scope");
    });
    run_test({.seeds = {}}, [] {
        weft::socket_address const nobody(weft::ip_address::parse("192.0.2.1"), 443);
        check(weft::getnameinfo(nobody, NI_NUMERICHOST).host == "192.0.2.1", "as a number");
        check(weft::getnameinfo(nobody, NI_NUMERICHOST).service == "https", "by name");
        check_throws<std::system_error>([] { weft::getnameinfo(weft::socket_address()); }, "none");
    });
}

TEST_CASE("KN4: a port out of range is an error that names it, not another port") {
    run_test({.seeds = {}}, [] {
        for (std::string const host : {"127.0.0.1", "localhost", ""})
            for (std::string const port : {"65536", "65616", "99999999999", "-1", "+65616",
                                           " 65616", "-4294967216"}) {
                bool told = false;
                try {
                    weft::getaddrinfo(host, port, {.type = SOCK_STREAM});
                } catch (std::system_error const& failure) {
                    told =
                        failure.code() == std::error_code(EAI_SERVICE, weft::resolver_category());
                    told = told && std::string(failure.what()).find(port) != std::string::npos;
                }
                check(told, port + " of " + host);
            }
        check(weft::getaddrinfo("127.0.0.1", "65535").front().address.port() == 65535, "the last");
        check(weft::getaddrinfo("127.0.0.1", "000080").front().address.port() == 80, "zeros");
    });
}

TEST_CASE("KN4: what cannot be resolved is an error of the resolver") {
    run_test({.workers = {1}, .seeds = {}}, [] {
        // A server that does not answer would be waited for: with an empty or too long label none is asked.
        for (std::string const& name : {std::string("no-such-host..invalid"), std::string(64, 'x') + ".invalid"}) {
            bool failed = false;
            try {
                weft::getaddrinfo(name, "80");
            } catch (std::system_error const& failure) {
                failed = failure.code().category() == weft::resolver_category();
            }
            check(failed, name);
        }
        check_throws<std::system_error>(
            [] { weft::getaddrinfo("127.0.0.1", "no-such-service", {.type = SOCK_STREAM}); },
            "service");
        check_throws<std::invalid_argument>(
            [] { weft::getaddrinfo(std::string("a\0b", 3), "80"); }, "a NUL");
    });
}

TEST_CASE("KN6: a cancelled look-up returns at once") {
    run_test({.seeds = {}}, [] {
        weft::cancel_scope scope;
        scope.cancel();
        check(!scope.run([] { weft::getaddrinfo("localhost", "80"); }), "on entry");
    });
}

TEST_CASE("KN2: names beyond ASCII are encoded as IDNA 2008 has it, ASCII is left alone") {
    auto const encode = [](char const* name) { return weft::detail::to_ascii_host(name); };
    for (char const* const name :
         {"example.org", "a_b.example", "-ab.com", "ab--cd.com", "EXAMPLE."})
        CHECK(encode(name) == name);
    std::string first;
    try {
        first = encode("straße.de");
    } catch (std::invalid_argument const&) {
        return; // built without libidn2
    }
    CHECK(first == "xn--strae-oqa.de");
    CHECK(encode("faß.de") == "xn--fa-hia.de");
    CHECK(encode("BÜCHER.example") == "xn--bcher-kva.example");
    for (char const* const name : {"l·l.de", "L·L.de", "l·L.de", "ｌ·l.de", "ŀl.de", "xn--ll-0ea。de"})
        CHECK(encode(name) == "xn--ll-0ea.de");
    for (char const* const name :
         {"☃.net", "💩.la", "ü_x.de", "Ü..de", "ä·l.de", "ŀa.de", "aŀ.de", "·.de", "ü x.de", "\xff.de"})
        CHECK_THROWS_AS(encode(name), std::invalid_argument);
}

TEST_SUITE_END();
