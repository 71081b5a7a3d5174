#include "tools/command_line.hpp"

#include <weft/runtime/run.hpp>
#include <weft/streams/tls.hpp>

#include <array>
#include <cstdio>
#include <exception>
#include <string>

#include <getopt.h>
#include <openssl/ssl.h>
#include <sys/resource.h>
#include <unistd.h>

// A TLS server to be measured and tried: `hs` shakes hands and hears one octet, `source` then sends
// 1 GiB, both in TLS 1.3; `echo` sends back what it hears, with whatever the defaults allow.

namespace {

constexpr char usage[] = "usage: weft-tls hs|source|echo PORT CERT KEY [WORKERS]\n";
constexpr ::option known[] = {{"help", no_argument, nullptr, 'H'}, {}};
constexpr std::size_t amount = std::size_t(1) << 30;

struct options {
    std::string mode;
    std::uint16_t port = 0;
    std::string certificate;
    std::string key;
    unsigned workers = 1;
};

options parse(int argc, char** argv) {
    int const found = ::getopt_long(argc, argv, "", known, nullptr);
    if (found == 'H') command_line::explain(usage);
    if (found != -1) command_line::refuse();
    char** const given = argv + optind;
    int const count = argc - optind;
    if (count < 4 || count > 5)
        command_line::refuse("there are four or five arguments, not " + std::to_string(count));
    options result;
    result.mode = given[0];
    if (result.mode != "hs" && result.mode != "source" && result.mode != "echo")
        command_line::refuse("there is no mode '" + result.mode + "'");
    result.port = command_line::number<std::uint16_t>("PORT", given[1], 0, 65535);
    result.certificate = given[2];
    result.key = given[3];
    if (count == 5)
        result.workers = command_line::number<unsigned>("WORKERS", given[4], 0, command_line::most_workers);
    return result;
}

constexpr std::array<char, 65536> zeros{}; // not on each connection's stack: hs needs none of it

void handle(bool is_source, weft::tls_stream stream) {
    std::array<char, 1> first{};
    try {
        stream.receive_some(weft::as_buffer(first));
        for (std::size_t sent = 0; is_source && sent < amount; sent += zeros.size())
            stream.send(zeros);
    } catch (weft::broken_resource_error const&) { // clients hang up without good-bye
    }
}

void echo(weft::tls_stream stream) {
    std::array<char, 65536> space{};
    weft::buffer const room = weft::as_buffer(space);
    try {
        while (std::size_t const count = stream.receive_some(room))
            stream.send(room.first(count));
        stream.close();
    } catch (weft::broken_resource_error const&) { // without good-bye
    } catch (weft::tls_error const&) {             // nonsense
    }
}

weft::tls_context make_context(options const& asked) {
    if (asked.mode == "echo") return weft::tls_context::server(asked.certificate, asked.key);
    auto context =
        weft::tls_context::server(asked.certificate, asked.key, {.minimum_version = weft::tls_1_3});
    ::SSL_CTX_set_ciphersuites(context.native(), "TLS_AES_128_GCM_SHA256");
    return context;
}

void serve(options const& asked) {
    weft::tls_context context = make_context(asked);
    auto sockets = weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = asked.port});
    std::fprintf(stderr, "ready %d %u\n", int(::getpid()),
                 unsigned(sockets.extra(weft::socket_attribute::local_port)));
    weft::tls_listener listener(std::move(sockets), std::move(context));
    listener.handle_handshake_error([](std::exception_ptr, weft::any_byte_stream&) {});
    listener.serve([&mode = asked.mode](weft::tls_stream stream) {
        if (mode == "echo") return echo(std::move(stream));
        handle(mode == "source", std::move(stream));
    });
}

} // namespace

int main(int argc, char** argv) try {
    options const asked = parse(argc, argv);
    weft::run({.workers = asked.workers}, serve, asked);
} catch (std::exception const& failure) {
    std::fprintf(stderr, "weft-tls: %s\n", failure.what());
    return 1;
}
