#include <weft/streams/tls.hpp>

#include "sockets.hpp"
#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/buffered.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/wait.h>

// Handshakes with other implementations, as far as they are installed: tools/setup sees to it.
TEST_SUITE_BEGIN("streams.tls_interop");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::tls_stream;

bool is_there(std::string const& program) {
    bool const found = std::system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0;
    if (!found) MESSAGE(program << " is not installed: skipped");
    return found;
}

struct result {
    int status = -1;
    std::string output;
};

// A command of the shell. Blocks the thread.
class command {
public:
    explicit command(std::string const& line)
        : pipe_(::popen(("exec 2>&1; " + line).c_str(), "r")) {
        if (pipe_ == nullptr) throw std::runtime_error("cannot run " + line);
    }
    command(command const&) = delete;
    command& operator=(command const&) = delete;
    ~command() {
        if (pipe_ != nullptr) ::pclose(pipe_);
    }
    std::string read_line() {
        char space[4096];
        if (std::fgets(space, sizeof space, pipe_) == nullptr) return {};
        return space;
    }
    result finish() {
        result all;
        for (std::string line = read_line(); !line.empty(); line = read_line())
            all.output += line;
        int const status = ::pclose(std::exchange(pipe_, nullptr));
        all.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        return all;
    }

private:
    std::FILE* pipe_;
};

result run_aside(std::string const& line) {
    return weft::to_thread::run_sync(
        [line] { return command("timeout 20 sh -c '" + line + "'").finish(); });
}

std::string receive_all(weft::byte_receive_stream& from) {
    std::string all;
    for (weft::bytes const& chunk : from)
        all += chunk;
    return all;
}

struct heard {
    std::string text;
    std::string version;
    std::string alpn;
    bool ended_well = false;
};

// What our server hears from one run of the client, which it greets. Both have come to their end.
heard serve_once(std::string const& client, weft::tls_context const& context, result& end) {
    heard got;
    weft::event served;
    auto sockets = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::string const port = std::to_string(port_of(sockets));
    weft::tls_listener listener(std::move(sockets), context);
    std::string line = client;
    for (auto at = line.find("PORT"); at != line.npos; at = line.find("PORT"))
        line.replace(at, 4, port);
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            listener.serve([&got, &served](tls_stream stream) {
                got.version = stream.extra(weft::tls_attribute::tls_version);
                got.alpn = stream.extra(weft::tls_attribute::alpn_protocol).value_or("");
                stream.send("welcome\n");
                try {
                    got.text = receive_all(stream);
                    stream.close();
                    got.ended_well = true;
                } catch (weft::broken_resource_error const&) { // no good-bye
                }
                served.set();
            });
        });
        end = run_aside(line);
        // The client may be gone before the server has read its good-bye. It never came if it failed.
        if (end.status == 0) weft::fail_after(20s, [&] { served.wait(); });
        group.cancel();
    });
    return got;
}

void expect_client_works(std::string const& line, std::string const& version) {
    weft::run({.workers = 2}, [&] {
        result end;
        heard const got = serve_once(line, trusted_server({.alpn_protocols = {"weft"}}), end);
        check(got.text == "hello\n", line + ": it heard '" + got.text + "'; " + end.output);
        check(got.version == version, "the version: " + got.version);
        check(got.ended_well, "with a good-bye from both sides");
        check(end.status == 0, "it ended with " + std::to_string(end.status) + ": " + end.output);
        bool const asks = line.find("alpn") != line.npos;
        check(got.alpn == (asks ? "weft" : ""), "the protocol: " + got.alpn);
    });
}

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

std::uint16_t free_port() {
    return port_of(weft::create_tcp_listener({.local_host = "127.0.0.1"}));
}

std::string const authority = certificates::get().authority.chain;
std::string const certificate = certificates::get().server.chain;
std::string const key = certificates::get().server.key;

} // namespace

TEST_CASE("OpenSSL's s_client talks to our server, in each version") {
    if (!is_there("openssl")) return;
    for (auto const& [option, version] : {std::pair{"-tls1_2", "TLSv1.2"}, {"-tls1_3", "TLSv1.3"}})
        expect_client_works("echo hello | openssl s_client -connect 127.0.0.1:PORT -CAfile " +
                                authority +
                                " -verify_return_error -verify_hostname localhost "
                                "-servername localhost -alpn weft " +
                                option,
                            version);
}

TEST_CASE("GnuTLS's gnutls-cli talks to our server, in each version") {
    if (!is_there("gnutls-cli")) return;
    for (auto const& [option, version] : {std::pair{"1.2", "TLSv1.2"}, {"1.3", "TLSv1.3"}})
        expect_client_works("echo hello | gnutls-cli --x509cafile=" + authority +
                                " --verify-hostname=localhost --sni-hostname=localhost "
                                "--priority=NORMAL:-VERS-ALL:+VERS-TLS" +
                                option + " --port=PORT 127.0.0.1",
                            version);
}

TEST_CASE("NSS's tstclnt shakes hands with our server, in each version") {
    if (!is_there("tstclnt")) return;
    for (auto const& [option, version] : {std::pair{"tls1.2", "TLSv1.2"}, {"tls1.3", "TLSv1.3"}})
        weft::run({.workers = 2}, [&, option = option, version = version] {
            result end;
            heard const got =
                serve_once(std::string("tstclnt -h 127.0.0.1 -p PORT -a localhost -D -o -Q -V ") +
                               option + ":" + option,
                           trusted_server(), end);
            check(got.version == version && end.status == 0, version + (": " + end.output));
        });
}

TEST_CASE("curl fetches a page from our server, in each version") {
    if (!is_there("curl")) return;
    for (char const* const option : {"--tlsv1.2 --tls-max 1.2", "--tlsv1.3"})
        weft::run({.workers = 2}, [option] {
            auto sockets = weft::create_tcp_listener({.local_host = "127.0.0.1"});
            std::string const port = std::to_string(port_of(sockets));
            weft::tls_listener listener(std::move(sockets), trusted_server());
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    listener.serve([](tls_stream stream) {
                        weft::buffered_byte_stream reader(std::move(stream));
                        reader.receive_until("\r\n\r\n", 10'000);
                        reader.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
                                    "Connection: close\r\n\r\nwarp");
                        reader.close();
                    });
                });
                result const end =
                    run_aside("curl --silent --show-error --noproxy \"*\" --cacert " + authority +
                              " --resolve localhost:" + port + ":127.0.0.1 " + option +
                              " https://localhost:" + port + "/");
                check(end.status == 0 && end.output == "warp", "curl: " + end.output);
                group.cancel();
            });
        });
}

TEST_CASE("our client talks to OpenSSL's s_server, in each version, and resumes") {
    if (!is_there("openssl")) return;
    for (char const* const version : {"1_2", "1_3"})
        weft::run({.workers = 2}, [version] {
            command server(
                "timeout 20 openssl s_server -accept 127.0.0.1:0 -naccept 3 -rev -cert " +
                certificate + " -key " + key + " -tls" + version);
            std::string const port = weft::to_thread::run_sync([&server] {
                std::string line = server.read_line();
                while (!line.empty() && !line.starts_with("ACCEPT"))
                    line = server.read_line();
                return line.substr(line.rfind(':') + 1);
            });
            auto const context = trusting_client();
            for (int time = 0; time < 3; ++time) {
                auto stream = connect_when_ready(std::uint16_t(std::stoi(port)), context);
                weft::buffered_byte_stream reader(stream);
                reader.send("weft\n");
                check(reader.receive_until("\n", 100) == "tfew", "reversed");
                bool const resumed =
                    ::SSL_session_reused(stream.extra(weft::tls_attribute::ssl_object)) == 1;
                check(resumed == (time != 0), "resumed the second time");
                reader.send("CLOSE\n"); // which it takes as the end
                check_throws<weft::end_of_stream>([&] { reader.receive(); }, "its good-bye");
                reader.close();
            }
            weft::to_thread::run_sync([&server] { server.finish(); });
        });
}

TEST_CASE("our client talks to gnutls-serv, in each version") {
    if (!is_there("gnutls-serv")) return;
    for (char const* const version : {"1.2", "1.3"})
        weft::run({.workers = 2}, [version] {
            std::uint16_t const port = free_port();
            command server("echo $$; exec timeout 20 gnutls-serv --quiet --echo --x509certfile=" +
                           certificate + " --x509keyfile=" + key +
                           " --port=" + std::to_string(port) +
                           " --priority=NORMAL:-VERS-ALL:+VERS-TLS" + version);
            std::string const pid =
                weft::to_thread::run_sync([&server] { return server.read_line(); });
            weft::fail_after(15s, [&] {
                auto stream = connect_when_ready(port, trusting_client());
                check(stream.extra(weft::tls_attribute::tls_version) ==
                          std::string("TLSv") + version,
                      "the version");
                weft::buffered_byte_stream reader(stream);
                reader.send("weft\n");
                check(reader.receive_until("\n", 100) == "weft", "the echo");
                weft::close_forcefully(reader);
            });
            ::kill(::pid_t(std::stoi(pid)), SIGTERM);
            weft::to_thread::run_sync([&server] { server.finish(); });
        });
}
