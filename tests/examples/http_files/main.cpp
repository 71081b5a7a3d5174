// A server of the files in a directory, for curl, wrk, ab and browsers:
//
//   weft-example-http_files DIRECTORY [PORT]
//
// It says 'ready PORT' on standard error once it listens, and ends on SIGINT or SIGTERM, after the
// answers that have begun.

#include "server.hpp"

#include <weft/io/signals.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

int main(int argc, char** argv) try {
    int const port = argc == 3 ? std::atoi(argv[2]) : 0;
    if (argc < 2 || argc > 3 || port < 0 || port > 65535) {
        std::fprintf(stderr, "usage: %s DIRECTORY [PORT]\n", argv[0]);
        return 2;
    }
    weft::run([&] {
        auto listener = weft::create_tcp_listener(
            {.local_host = "127.0.0.1", .local_port = std::uint16_t(port)});
        auto signals = weft::open_signal_receiver({SIGINT, SIGTERM});
        http_files::server server(http_files::site(argv[1]), {});
        std::fprintf(stderr, "ready %u\n",
                     unsigned(listener.extra(weft::socket_attribute::local_port)));
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { server.serve(listener); });
            signals.receive();
            group.cancel("told to end");
        });
    });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
