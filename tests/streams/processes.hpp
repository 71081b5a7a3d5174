#pragma once

#include "support/run_test.hpp"

#include <weft/streams/byte_stream.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <exception>
#include <fstream>
#include <functional>
#include <string>
#include <system_error>

#include <sys/wait.h>

/// What tests of processes share.
namespace weft::test {

/// Also: no child is left, dead or alive.
inline void run_with_processes(std::function<void()> const& body, unsigned times = 1) {
    run_test({.seeds = {}, .times = times}, body);
    ::siginfo_t info{};
    int const found = ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
    CHECK(found == -1);
    CHECK(errno == ECHILD);
}

/// Somebody has the number, be it a process that nobody has waited for.
inline bool exists(int pid) { return ::kill(pid, 0) == 0 || errno != ESRCH; }

/// Grandchildren are reaped by somebody else, a moment after they end.
inline bool is_running(int pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string text;
    std::getline(stat, text);
    std::size_t const name = text.rfind(')');
    return name != std::string::npos && text[name + 2] != 'Z' && text[name + 2] != 'X';
}

/// The errno that a call throws; 0: none.
inline int error_of(std::function<void()> const& call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return failure.code().value();
    }
    return 0;
}

inline std::string text_of_error(std::function<void()> const& call) {
    try {
        call();
    } catch (std::exception const& failure) {
        return failure.what();
    }
    return {};
}

/// Without its end; what there is at the end of the stream.
inline std::string read_line(byte_receive_stream& from) {
    std::string line;
    std::byte octet;
    while (from.receive_some({&octet, 1}) == 1 && octet != std::byte('\n'))
        line += char(octet);
    return line;
}

} // namespace weft::test
