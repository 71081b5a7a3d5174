#pragma once

#include "run_test.hpp"

#include <weft/runtime/error.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>

#include <sys/wait.h>
#include <unistd.h>

/// What a child of fork() that does not call exec is told.
namespace weft::test {

/// Runs the checks in such a child, which then leaves as it must; gives how many did not hold, or 128 and the
/// signal that ended it.
inline int failures_in_fork(std::function<int()> const& checks) {
    ::pid_t const child = ::fork();
    if (child == 0) {
        ::alarm(10 * slowdown); // what hangs is a failure, too
        ::_exit(checks());
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// There: 0 if the call is refused as it should be.
inline int is_refused(std::function<void()> const& call) {
    try {
        call();
        std::fputs("a call in a child of fork() was not refused\n", stderr);
    } catch (run_finished_error const& refused) {
        if (std::strstr(refused.what(), "child of fork()") != nullptr) return 0;
        std::fprintf(stderr, "a call in a child of fork(): %s\n", refused.what());
    } catch (std::exception const& other) {
        std::fprintf(stderr, "a call in a child of fork(): %s\n", other.what());
    } catch (...) { // wrong as well
        std::fputs("a call in a child of fork() threw something else\n", stderr);
    }
    return 1;
}

} // namespace weft::test
