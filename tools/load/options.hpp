#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

/// What weft-load was asked for.
namespace load {

struct options {
    std::string host = "127.0.0.1";
    std::uint16_t port = 7007;
    std::size_t connections = 1000;
    double seconds = 3;
    double warm_up = 0.5; // seconds that are not counted
    std::size_t message_bytes = 64;
    unsigned workers = 0; // 0: as run_options
    bool reconnect = false; // a connection for each message
    bool json = false;
};

/// Ends the program with the usage if the arguments are not understood.
options parse_options(int argc, char** argv);

} // namespace load
