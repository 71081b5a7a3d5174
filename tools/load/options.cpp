#include "options.hpp"

#include <cstdio>
#include <cstdlib>
#include <getopt.h>

namespace load {

namespace {

constexpr char usage[] =
    "usage: weft-load [--host HOST] [--port PORT] [--connections N] [--seconds S] [--warm-up S]\n"
    "                 [--message-bytes N] [--workers N] [--reconnect] [--json]\n"
    "\n"
    "Drives an echo server: each connection sends a message, waits until all of it is back, and\n"
    "sends the next; with --reconnect over a new connection each time. Prints throughput and latencies as 'name value unit' lines, or as JSON.\n";

constexpr ::option known[] = {
    {"host", required_argument, nullptr, 'h'},        {"port", required_argument, nullptr, 'p'},
    {"connections", required_argument, nullptr, 'c'},
    {"seconds", required_argument, nullptr, 's'},
    {"warm-up", required_argument, nullptr, 'u'},
    {"message-bytes", required_argument, nullptr, 'b'},
    {"workers", required_argument, nullptr, 'w'},
    {"reconnect", no_argument, nullptr, 'r'},
    {"json", no_argument, nullptr, 'j'},
    {"help", no_argument, nullptr, '?'},
    {},
};

[[noreturn]] void refuse() {
    std::fputs(usage, stderr);
    std::exit(2);
}

double number(char const* text, double least, double most) {
    char* end = nullptr;
    double const value = std::strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) refuse();
    return value;
}

} // namespace

options parse_options(int argc, char** argv) {
    options asked;
    for (int found; (found = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        switch (found) {
        case 'h': asked.host = optarg; break;
        case 'p': asked.port = std::uint16_t(number(optarg, 1, 65535)); break;
        case 'c': asked.connections = std::size_t(number(optarg, 1, 1e7)); break;
        case 's': asked.seconds = number(optarg, 0.001, 1e6); break;
        case 'u': asked.warm_up = number(optarg, 0, 1e6); break;
        case 'b': asked.message_bytes = std::size_t(number(optarg, 1, 1 << 20)); break;
        case 'w': asked.workers = unsigned(number(optarg, 0, 1024)); break;
        case 'r': asked.reconnect = true; break;
        case 'j': asked.json = true; break;
        default: refuse();
        }
    }
    if (optind < argc) refuse();
    return asked;
}

} // namespace load
