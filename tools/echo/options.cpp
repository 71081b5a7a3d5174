#include "options.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <getopt.h>

namespace echo {

namespace {

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
    {"quiet", no_argument, nullptr, 'q'},         {"help", no_argument, nullptr, '?'},
    {},
};

[[noreturn]] void refuse() {
    std::fputs(usage, stderr);
    std::exit(2);
}

double number(char const* text, double most) {
    char* end = nullptr;
    double const value = std::strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value <= most)) refuse();
    return value;
}

mode mode_named(char const* name) {
    if (!std::strcmp(name, "echo")) return mode::echo;
    if (!std::strcmp(name, "sink")) return mode::sink;
    if (!std::strcmp(name, "source")) return mode::source;
    refuse();
}

} // namespace

options parse_options(int argc, char** argv) {
    options asked;
    for (int found; (found = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        switch (found) {
        case 'h': asked.host = optarg; break;
        case 'p': asked.port = std::uint16_t(number(optarg, 65535)); break;
        case 'w': asked.workers = unsigned(number(optarg, 1024)); break;
        case 's': asked.seconds = number(optarg, 1e9); break;
        case 'q': asked.quiet = true; break;
        default: refuse();
        }
    }
    if (optind < argc) asked.serves = mode_named(argv[optind++]);
    if (optind < argc) refuse();
    return asked;
}

} // namespace echo
