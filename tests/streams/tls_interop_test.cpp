#include <weft/streams/tls.hpp>

#include "tls_programs.hpp"
#include "support/receive_all.hpp"

#include <weft/io/path.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/buffered.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <utility>

// Clients of other implementations. Those that tools/setup installs must be there in CI; Go is tried where it is.
TEST_SUITE_BEGIN("streams.tls_interop");

namespace {

using namespace weft::test;
using weft::tls_stream;

std::string const& authority() { return certificates::get().authority.chain; }

// What our server hears from a client.
struct heard {
    std::string text{};
    std::string version{};
    std::string alpn{};
    std::string failure{};
};

void greet(tls_stream& stream, heard& got) {
    got.version = stream.extra(weft::tls_attribute::tls_version);
    got.alpn = stream.extra(weft::tls_attribute::alpn_protocol).value_or("");
    try {
        stream.send("welcome\n");
        got.text = receive_all(stream);
        stream.close();
    } catch (weft::broken_resource_error const& failure) {
        got.failure = failure.what();
    }
}

// Serves one client, which the call runs with our port. Returns when both have come to their end;
// a client that failed, which the call tells by false, perhaps never began.
void serve_one(weft::tls_context const& context, std::function<void(tls_stream&)> const& handler,
               std::function<bool(std::string const& port)> const& run_client) {
    weft::event served;
    auto sockets = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::string const port = std::to_string(port_of(sockets));
    weft::tls_listener listener(std::move(sockets), context);
    weft::fail_after(patience, [&] {
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                listener.serve([&](tls_stream stream) {
                    handler(stream);
                    served.set();
                });
            });
            if (run_client(port)) served.wait();
            group.cancel();
        });
    });
}

weft::tls_context server_of(certificate_files const& files) {
    return weft::tls_context::server(files.chain, files.key, {.alpn_protocols = {"weft"}});
}

// One that shows what it receives, and says good-bye at the end of its input.
void expect_client_works(std::function<words(std::string const& port)> const& client,
                         certificate_case const& with, std::string const& version,
                         std::string const& alpn = "weft") {
    weft::run({.workers = 2}, [&] {
        heard got;
        int status = -1;
        std::string said;
        serve_one(
            server_of(with.files), [&](tls_stream& stream) { greet(stream, got); },
            [&](std::string const& port) {
                program peer(client(port));
                peer.say("hello\n");
                peer.read_until("welcome\n");
                status = peer.finish();
                said = peer.said();
                return status == 0;
            });
        std::string const what = with.name + ", " + version + ": ";
        check(status == 0, what + "it ended with " + std::to_string(status) + ": " + said);
        check(said.find("welcome\n") != said.npos, what + "it heard " + said);
        check(got.failure.empty(), what + "with a good-bye from both sides: " + got.failure);
        check(got.text == "hello\n", what + "we heard '" + got.text + "'");
        check(got.version == "TLSv" + version, what + "the version: " + got.version);
        check(got.alpn == alpn, what + "the protocol: " + got.alpn);
    });
}

void for_each_case(std::function<void(certificate_case const&, std::string const&)> const& call) {
    for (certificate_case const& each : certificate_cases())
        for (std::string const& version : tls_versions)
            call(each, version);
}

} // namespace

TEST_CASE("OpenSSL's s_client talks to our server, in each version, with each certificate") {
    if (!is_there("openssl")) return;
    for_each_case([](certificate_case const& with, std::string const& version) {
        auto const client = [&version](std::string const& port) {
            return words{"openssl",
                         "s_client",
                         "-connect",
                         "127.0.0.1:" + port,
                         "-CAfile",
                         authority(),
                         "-verify_return_error",
                         "-verify_hostname",
                         "localhost",
                         "-servername",
                         "localhost",
                         "-alpn",
                         "weft",
                         version == "1.2" ? "-tls1_2" : "-tls1_3"};
        };
        expect_client_works(client, with, version);
    });
}

TEST_CASE("GnuTLS's gnutls-cli talks to our server, in each version, with each certificate") {
    if (!is_there("gnutls-cli")) return;
    for_each_case([](certificate_case const& with, std::string const& version) {
        auto const client = [&version](std::string const& port) {
            return words{"gnutls-cli",
                         "--x509cafile=" + authority(),
                         "--verify-hostname=localhost",
                         "--sni-hostname=localhost",
                         "--alpn=weft",
                         "--priority=NORMAL:-VERS-ALL:+VERS-TLS" + version,
                         "--port=" + port,
                         "127.0.0.1"};
        };
        expect_client_works(client, with, version);
    });
}

TEST_CASE("Go's crypto/tls talks to our server, in each version, with each certificate") {
    if (!go_peer()) return;
    for_each_case([](certificate_case const& with, std::string const& version) {
        auto const client = [&version](std::string const& port) {
            return words{*go_peer(), "client", port, authority(), version, "weft"};
        };
        expect_client_works(client, with, version);
    });
}

TEST_CASE("NSS's tstclnt talks to our server, in each version, with each certificate") {
    for (char const* const tool : {"tstclnt", "certutil"})
        if (!is_there(tool)) return;
    std::string database;
    std::string const hello = certificates::get().folder() + "/hello"; // of a pipe it does not see the end
    weft::run({.workers = 1}, [&] {
        weft::path(hello).write_text("hello\n");
        database = make_nss_database("tstclnt");
        weft::run_process({"certutil", "-A", "-d", database, "-n", "authority", "-t", "C,,", "-i", authority()});
    });
    for_each_case([&](certificate_case const& with, std::string const& version) {
        if (with.name == "Ed25519") return; // NSS does not know it yet
        weft::run({.workers = 2}, [&] {
            heard got;
            int status = -1;
            std::string said;
            auto const talk = [&got](tls_stream& stream) { // it leaves it to us to end
                got.version = stream.extra(weft::tls_attribute::tls_version);
                weft::buffered_byte_stream reader(stream);
                reader.send("welcome\n");
                got.text = reader.receive_until("\n", 100);
                reader.close(); // with its good-bye
            };
            auto const run_client = [&](std::string const& port) {
                std::string const only = "tls" + version;
                program peer({"tstclnt", "-h", "127.0.0.1", "-p", port, "-a", "localhost", "-d", database, "-V",
                              only + ":" + only, "-A", hello});
                status = peer.finish();
                said = peer.said();
                return status == 0;
            };
            serve_one(server_of(with.files), talk, run_client);
            std::string const what = with.name + ", " + version + ": ";
            check(status == 0, what + "it ended with " + std::to_string(status) + ": " + said);
            check(said.find("welcome\n") != said.npos, what + "it heard " + said);
            check(got.text == "hello", what + "we heard '" + got.text + "'");
            check(got.version == "TLSv" + version, what + "the version: " + got.version);
        });
    });
}

TEST_CASE("curl fetches a page from our server, in each version, with each certificate") {
    if (!is_there("curl")) return;
    for_each_case([](certificate_case const& with, std::string const& version) {
        weft::run({.workers = 2}, [&] {
            std::string said;
            auto const give_page = [](tls_stream& stream) {
                weft::buffered_byte_stream reader(stream);
                reader.receive_until("\r\n\r\n", 10'000);
                reader.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
                            "Connection: close\r\n\r\nwarp");
                reader.close();
            };
            auto const fetch = [&](std::string const& port) {
                program peer({"curl", "--silent", "--show-error", "--noproxy", "*", "--cacert",
                              authority(), "--resolve", "localhost:" + port + ":127.0.0.1",
                              "--tlsv" + version, "--tls-max", version,
                              "https://localhost:" + port + "/"});
                int const status = peer.finish();
                said = peer.said();
                return status == 0;
            };
            serve_one(weft::tls_context::server(with.files.chain, with.files.key), give_page,
                      fetch);
            check(said == "warp", with.name + ", " + version + ": " + said);
        });
    });
}
