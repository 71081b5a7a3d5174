#pragma once

#include <string>

/// Tests of what ends a process: they run in a child, which is this very program, started anew.
///
///     weft::test::child_program const overflow("overflow", [] { ...dies... });
///
///     TEST_CASE("an overflow is reported") {
///         auto const end = weft::test::run_child("overflow");
///         CHECK(end.signal == SIGABRT);
///         CHECK(end.output.find("stack overflow") != std::string::npos);
///     }
namespace weft::test {

/// A program for children, by name. At namespace scope. When the body returns, the child exits with 0.
class child_program {
public:
    child_program(char const* name, void (*body)());
};

struct child_end {
    int exit_code = -1; ///< -1: ended by a signal
    int signal = 0;
    std::string output; ///< standard output and standard error
    double cpu_seconds = 0;

    bool says(char const* text) const { return output.find(text) != std::string::npos; }
};

/// Runs it and waits for its end; one that hangs ends by SIGALRM. Errors: std::system_error
child_end run_child(char const* name);

/// main() of a child.
int child_main(char const* name);

} // namespace weft::test
