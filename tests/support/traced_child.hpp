#pragma once

#include <string>
#include <vector>

/// Tests of what a process asks of the kernel: a child_program that strace looks at.
namespace weft::test {

struct traced_child {
    bool was_traced = false;        ///< false: there is no strace, or nobody may trace here
    int exit_code = -1;             ///< -1: ended by a signal
    std::string output;             ///< standard output and standard error
    std::vector<std::string> lines; ///< of strace, each with the number of its thread before it
};

/// Runs the child_program of that name with strace's options, such as "-e trace=write", and waits for
/// its end. Errors: std::runtime_error (no place for the log)
traced_child trace_child(std::string const& name, std::string const& options);

/// Whether a line has that in it.
inline bool has(std::string const& line, char const* text) {
    return line.find(text) != std::string::npos;
}

} // namespace weft::test
