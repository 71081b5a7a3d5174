#include "options.hpp"

#include "tools/command_line.hpp"

#include <algorithm>
#include <getopt.h>
#include <sys/resource.h>

namespace load {

namespace {

using command_line::number;

constexpr char usage[] =
    "usage: weft-load [--host HOST] [--port PORT] [--connections N] [--seconds S] [--warm-up S]\n"
    "                 [--message-bytes N] [--workers N] [--reconnect] [--json]\n"
    "\n"
    "Drives an echo server: each connection sends a message, waits until all of it is back, and\n"
    "sends the next; with --reconnect over a new connection each time. Prints throughput and\n"
    "latencies as 'name value unit' lines, or as JSON.\n";

constexpr ::option known[] = {
    {"host", required_argument, nullptr, 'h'},        {"port", required_argument, nullptr, 'p'},
    {"connections", required_argument, nullptr, 'c'},
    {"seconds", required_argument, nullptr, 's'},
    {"warm-up", required_argument, nullptr, 'u'},
    {"message-bytes", required_argument, nullptr, 'b'},
    {"workers", required_argument, nullptr, 'w'},
    {"reconnect", no_argument, nullptr, 'r'},
    {"json", no_argument, nullptr, 'j'},
    {"help", no_argument, nullptr, 'H'},
    {},
};

// A descriptor each; and a local port, of which there are fewer than that for each of client.cpp's addresses.
std::size_t most_connections() {
    ::rlimit descriptors{};
    ::getrlimit(RLIMIT_NOFILE, &descriptors);
    return std::min<std::size_t>(descriptors.rlim_max, 8 * 65535);
}

} // namespace

options parse_options(int argc, char** argv) {
    options asked;
    for (int found; (found = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        switch (found) {
        case 'h': asked.host = optarg; break;
        case 'p': asked.port = number<std::uint16_t>("--port", optarg, 1, 65535); break;
        case 'c':
            asked.connections = number<std::size_t>("--connections", optarg, 1, most_connections());
            break;
        case 's': asked.seconds = number<double>("--seconds", optarg, 0.001, 1e6); break;
        case 'u': asked.warm_up = number<double>("--warm-up", optarg, 0, 1e6); break;
        case 'b': asked.message_bytes = number<std::size_t>("--message-bytes", optarg, 1, 1 << 20); break;
        case 'w': asked.workers = number<unsigned>("--workers", optarg, 0, command_line::most_workers); break;
        case 'r': asked.reconnect = true; break;
        case 'j': asked.json = true; break;
        case 'H': command_line::explain(usage);
        default: command_line::refuse();
        }
    }
    if (optind < argc) command_line::refuse("what is '" + std::string(argv[optind]) + "'?");
    return asked;
}

} // namespace load
