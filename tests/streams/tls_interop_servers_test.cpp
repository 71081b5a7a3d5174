#include <weft/streams/tls.hpp>

#include "tls_programs.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/streams/buffered.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

// Servers of other implementations. Those that tools/setup installs must be there in CI; Go is tried where it is.
TEST_SUITE_BEGIN("streams.tls_interop_servers");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::tls_stream;

// Talks to a server that is there soon.
tls_stream connect_when_ready(std::uint16_t port, weft::tls_context const& context) {
    for (;;) {
        try {
            return weft::connect_tls("127.0.0.1", port,
                                     {.context = context, .tls_hostname = "localhost"});
        } catch (weft::connection_failed const&) { // not yet
            weft::sleep(20ms);
        }
    }
}

bool was_resumed(tls_stream const& stream) {
    return ::SSL_session_reused(stream.extra(weft::tls_attribute::ssl_object)) == 1;
}

// Has a line answered, and another one with new keys.
void talk(tls_stream& stream, std::string const& version, std::string const& answer,
          bool updates_keys) {
    weft::buffered_byte_stream reader(stream);
    check(stream.extra(weft::tls_attribute::tls_version) == "TLSv" + version, "the version");
    for (int time = 0; time < (updates_keys ? 2 : 1); ++time) {
        if (time != 0) stream.update_keys();
        reader.send("weft\n");
        check(reader.receive_until("\n", 100) == answer, "the answer");
    }
}

std::uint16_t to_port(std::string const& text) { return std::uint16_t(std::stoi(text)); }

// Runs the test with each version and certificate, each in a run of its own that does not take
// forever.
void for_each_case(std::function<void(certificate_case const&, std::string const&)> const& call) {
    for (certificate_case const& each : certificate_cases())
        for (std::string const& version : tls_versions) {
            INFO(each.name, ", ", version);
            weft::run({.workers = 2},
                      [&] { weft::fail_after(patience, [&] { call(each, version); }); });
        }
}

} // namespace

TEST_CASE("our client talks to OpenSSL's s_server, and resumes") {
    if (!is_there("openssl")) return;
    for_each_case([](certificate_case const& with, std::string const& version) {
        words line{"openssl",     "s_server",     "-accept",
                   "127.0.0.1:0", "-naccept",     "3",
                   "-rev",        "-cert",        with.files.chain,
                   "-key",        with.files.key, version == "1.2" ? "-tls1_2" : "-tls1_3"};
        if (!with.files.between.empty())
            line.insert(line.end(), {"-cert_chain", with.files.between});
        program server(line);
        server.read_until("ACCEPT 127.0.0.1:");
        std::uint16_t const port = to_port(server.read_until("\n"));
        auto const context = trusting_client();
        for (int time = 0; time < 3; ++time) {
            tls_stream stream = connect_when_ready(port, context);
            // Once: it sleeps for a second when what it gets is not data.
            bool const updates = version == "1.3" && with.name == "RSA" && time == 0;
            talk(stream, version, "tfew", updates);
            check(was_resumed(stream) == (time != 0), "resumed from the second time on");
            stream.send("CLOSE\n"); // which it takes as the end
            check_throws<weft::end_of_stream>([&] { stream.receive(); }, "its good-bye");
            stream.close();
        }
        check(server.finish() == 0, server.said());
    });
}

TEST_CASE("our client talks to Go's crypto/tls, and resumes") {
    if (!go_peer()) return;
    for_each_case([](certificate_case const& with, std::string const& version) {
        program server({*go_peer(), "server", with.files.chain, with.files.key, version});
        std::uint16_t const port = to_port(server.read_until("\n"));
        auto const context = trusting_client();
        for (int time = 0; time < 3; ++time) {
            tls_stream stream = connect_when_ready(port, context);
            talk(stream, version, "weft", version == "1.3");
            check(was_resumed(stream) == (time != 0), "resumed from the second time on");
            stream.close(); // with its good-bye
        }
    });
}

TEST_CASE("our client talks to gnutls-serv") {
    if (!is_there("gnutls-serv")) return;
    for_each_case([](certificate_case const& with, std::string const& version) {
        reserved_port const port;
        program server({"gnutls-serv", "--quiet", "--echo", "--x509certfile=" + with.files.chain,
                        "--x509keyfile=" + with.files.key,
                        "--port=" + std::to_string(port.number()),
                        "--priority=NORMAL:-VERS-ALL:+VERS-TLS" + version});
        tls_stream stream = connect_when_ready(port.number(), trusting_client());
        talk(stream, version, "weft", version == "1.3");
        weft::close_forcefully(stream);
    });
}

TEST_CASE("our client fetches a page from NSS's selfserv") {
    for (char const* const tool : {"selfserv", "certutil", "pk12util", "openssl"})
        if (!is_there(tool)) return;
    for_each_case([](certificate_case const& with, std::string const& version) {
        if (with.name == "Ed25519") return; // NSS does not know it yet
        std::string const database = make_nss_database(with.name + version);
        std::string const packed = with.files.chain + "-" + version + ".p12";
        weft::run_process({"openssl", "pkcs12", "-export", "-in", with.files.chain, "-inkey",
                           with.files.key, "-name", "server", "-passout", "pass:", "-out", packed});
        weft::run_process({"pk12util", "-i", packed, "-d", database, "-W", ""});
        reserved_port const port;
        std::string const only = "tls" + version;
        program server({"selfserv", "-d", database, "-n", "server", "-p",
                        std::to_string(port.number()), "-V", only + ":" + only});
        tls_stream stream = connect_when_ready(port.number(), trusting_client());
        check(stream.extra(weft::tls_attribute::tls_version) == "TLSv" + version, "the version");
        weft::buffered_byte_stream reader(stream);
        reader.send("GET / HTTP/1.0\r\n\r\n");
        check(reader.receive_until("EOF", 10'000).starts_with("HTTP/1.0 200 OK"), "the page");
        check_throws<weft::end_of_stream>(
            [&] {
                for (;;)
                    reader.receive();
            },
            "its good-bye");
        reader.close();
    });
}
