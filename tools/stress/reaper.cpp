#include "reaper.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace stress {

namespace {

// Those that are left behind on purpose live for a second (process.cpp).
constexpr std::chrono::seconds patience{20};

pid_t reap_one(int options) {
    pid_t reaped = 0;
    int status = 0;
    do
        reaped = ::waitpid(-1, &status, options);
    while (reaped < 0 && errno == EINTR);
    return reaped;
}

int reap_until_it_has_ended(pid_t child) {
    for (;;) {
        int status = 0;
        pid_t const reaped = ::waitpid(-1, &status, 0);
        if (reaped == child) return status;
        if (reaped < 0 && errno != EINTR)
            std::abort(); // the child was there, and nobody else waits
    }
}

bool all_end_soon() {
    auto const limit = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < limit) {
        pid_t const reaped = reap_one(WNOHANG);
        if (reaped < 0) return true; // ECHILD
        if (reaped == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
}

void end_those_left() {
    std::string const of = std::to_string(::getpid());
    std::ifstream children("/proc/self/task/" + of + "/children");
    for (pid_t pid = 0; children >> pid;) {
        std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline");
        std::string command{std::istreambuf_iterator<char>(file), {}};
        for (char& letter : command)
            if (letter == '\0') letter = ' ';
        std::fprintf(stderr, "VIOLATION: a process was left behind: %d %s\n", int(pid),
                     command.c_str());
        ::kill(pid, SIGKILL);
    }
}

[[noreturn]] void end_as(int status) {
    if (!WIFSIGNALED(status)) std::_Exit(WEXITSTATUS(status));
    ::signal(WTERMSIG(status), SIG_DFL);
    ::raise(WTERMSIG(status));
    std::_Exit(1);
}

} // namespace

void live_below_a_reaper() {
    if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return; // then init has them
    pid_t const parent = ::getpid();
    pid_t const child = ::fork();
    if (child < 0) return;
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL); // who ends the reaper means the storms
        if (::getppid() != parent) std::_Exit(1);
        return;
    }
    int const status = reap_until_it_has_ended(child);
    if (status == 0 && !all_end_soon()) {
        end_those_left();
        std::_Exit(1);
    }
    end_as(status);
}

} // namespace stress
