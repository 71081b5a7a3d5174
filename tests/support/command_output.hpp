#pragma once

#include <cstdio>
#include <string>

namespace weft::test {

/// What a shell command writes to its standard output; empty if it fails.
inline std::string output_of(std::string const& command) {
    std::string text;
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return text;
    char part[4096];
    while (std::size_t const count = std::fread(part, 1, sizeof part, pipe))
        text.append(part, count);
    return ::pclose(pipe) == 0 ? text : std::string();
}

} // namespace weft::test
