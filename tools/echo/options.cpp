#include "options.hpp"

#include "tools/command_line.hpp"

#include <cstring>
#include <getopt.h>

namespace echo {

namespace {

using command_line::number;

constexpr char usage[] =
    "usage: weft-echo [--host HOST] [--port PORT] [--workers N] [--seconds S] [--quiet] [MODE]\n"
    "\n"
    "  MODE  echo    what comes is sent back (the default)\n"
    "        sink    what comes is dropped\n"
    "        source  1 GiB when an octet has come, then the end\n"
    "\n"
    "It says 'ready PID PORT' on standard error once it listens. It ends on SIGINT, SIGTERM, or\n"
    "after S seconds, with an account of what the workers did.\n";

constexpr ::option known[] = {
    {"host", required_argument, nullptr, 'h'},    {"port", required_argument, nullptr, 'p'},
    {"workers", required_argument, nullptr, 'w'}, {"seconds", required_argument, nullptr, 's'},
    {"quiet", no_argument, nullptr, 'q'},         {"help", no_argument, nullptr, 'H'},
    {},
};

mode mode_named(char const* name) {
    if (!std::strcmp(name, "echo")) return mode::echo;
    if (!std::strcmp(name, "sink")) return mode::sink;
    if (!std::strcmp(name, "source")) return mode::source;
    command_line::refuse("there is no mode '" + std::string(name) + "'");
}

} // namespace

options parse_options(int argc, char** argv) {
    options asked;
    for (int found; (found = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        switch (found) {
        case 'h': asked.host = optarg; break;
        case 'p': asked.port = number<std::uint16_t>("--port", optarg, 0, 65535); break;
        case 'w': asked.workers = number<unsigned>("--workers", optarg, 0, command_line::most_workers); break;
        case 's': asked.seconds = number<double>("--seconds", optarg, 0, 1e9); break;
        case 'q': asked.quiet = true; break;
        case 'H': command_line::explain(usage);
        default: command_line::refuse();
        }
    }
    if (optind < argc) asked.serves = mode_named(argv[optind++]);
    if (optind < argc) command_line::refuse("there is one mode, not also '" + std::string(argv[optind]) + "'");
    return asked;
}

} // namespace echo
