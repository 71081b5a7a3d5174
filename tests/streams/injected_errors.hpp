#pragma once

#include "support/traced_child.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <string>

namespace weft::test {

/// The child program `name` says that all arrived, whole and once, although every second one of `calls` (names of
/// system calls with commas between them) is interrupted, or would wait: `injections` in all.
inline void check_all_arrives_despite_errors(std::string const& name, std::string const& calls,
                                             std::ptrdiff_t injections) {
    for (std::string const error : {"EINTR", "EAGAIN"}) {
        auto const traced =
            trace_child(name, "-e trace=" + calls + " -e inject=" + calls + ":when=1+2:error=" + error);
        if (!traced.was_traced) {
            MESSAGE("not tried: no strace here");
            return;
        }
        INFO(traced.output);
        CHECK(traced.exit_code == 0);
        CHECK(traced.output == "all arrived\n");
        CHECK(std::ranges::count_if(traced.lines, [](std::string const& line) {
                  return has(line, "(INJECTED)");
              }) == injections);
    }
}

} // namespace weft::test
