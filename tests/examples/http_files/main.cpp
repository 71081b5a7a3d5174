// A server of the files in a directory, for curl, wrk, ab and browsers:
//
//   weft-example-http_files DIRECTORY [PORT]
//
// It says 'ready PORT' on standard error once it listens, and ends on SIGINT or SIGTERM, after the
// answers that have begun, whatever else it is sent meanwhile.

#include "server.hpp"

#include <weft/io/signals.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

namespace {

void serve_until_interrupted(http_files::server& server, std::uint16_t port) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = port});
    auto signals = weft::open_signal_receiver({SIGINT, SIGTERM});
    std::fprintf(stderr, "ready %u\n", unsigned(listener.extra(weft::socket_attribute::local_port)));
    weft::cancel_scope until_told;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { // the next ones change nothing: what was begun is finished
            for (;;) {
                signals.receive();
                until_told.cancel("told to end");
            }
        });
        until_told.run([&] { server.serve(listener); });
        group.cancel("all is served");
    });
}

std::optional<http_files::site> site_in(char const* directory) {
    try {
        return std::optional<http_files::site>(std::in_place, directory);
    } catch (std::system_error const& failure) {
        std::fprintf(stderr, "%s\n", failure.what());
        return std::nullopt;
    }
}

} // namespace

int main(int argc, char** argv) try {
    if (argc < 2 || argc > 3) return std::fprintf(stderr, "usage: %s DIRECTORY [PORT]\n", argv[0]), 2;
    std::string_view const text = argc == 3 ? argv[2] : "0";
    std::uint16_t port = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size())
        return std::fprintf(stderr, "'%s' is no port\n", argv[2]), 2;
    std::optional<http_files::site> files = site_in(argv[1]);
    if (!files) return 2;
    http_files::server server(std::move(*files), {});
    weft::run([&] { serve_until_interrupted(server, port); });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
