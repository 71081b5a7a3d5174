#pragma once

#include <cstdint>
#include <string>

/// What weft-echo was asked for.
namespace echo {

enum class mode : std::uint8_t { echo, sink, source };

struct options {
    mode serves = mode::echo;
    std::string host = "127.0.0.1";
    std::uint16_t port = 7007; // 0: one that is free
    unsigned workers = 0;      // 0: as run_options
    double seconds = 0;        // 0: until SIGINT or SIGTERM
    bool quiet = false;        // no account at the end
};

/// Ends the program with the usage if the arguments are not understood.
options parse_options(int argc, char** argv);

} // namespace echo
