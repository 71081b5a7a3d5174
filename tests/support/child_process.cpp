#include "support/child_process.hpp"

#include "support/run_test.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace weft::test {

namespace {

constexpr unsigned hang_after = 60; // seconds

std::vector<std::pair<char const*, void (*)()>>& programs() {
    static std::vector<std::pair<char const*, void (*)()>> known;
    return known;
}

void require(int error, char const* what) {
    if (error != 0) throw std::system_error(error, std::system_category(), what);
}

std::string read_all(int from) {
    std::string text;
    char part[4096];
    for (;;) {
        ssize_t const count = ::read(from, part, sizeof part);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return text;
        text.append(part, std::size_t(count));
    }
}

} // namespace

child_program::child_program(char const* name, void (*body)()) {
    programs().emplace_back(name, body);
}

child_end run_child(char const* name) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) require(errno, "pipe2");
    posix_spawn_file_actions_t actions;
    require(::posix_spawn_file_actions_init(&actions), "posix_spawn");
    require(::posix_spawn_file_actions_adddup2(&actions, ends[1], 1), "posix_spawn");
    require(::posix_spawn_file_actions_adddup2(&actions, ends[1], 2), "posix_spawn");
    std::string program = std::filesystem::read_symlink("/proc/self/exe"); // by name, for reports
    char option[] = "--child";
    std::string which = name;
    char* arguments[] = {program.data(), option, which.data(), nullptr};
    pid_t child = 0;
    int const error = ::posix_spawn(&child, program.c_str(), &actions, nullptr, arguments, environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    child_end end;
    if (error == 0) end.output = read_all(ends[0]);
    ::close(ends[0]);
    require(error, "posix_spawn");

    int status = 0;
    rusage used{};
    while (::wait4(child, &status, 0, &used) < 0)
        if (errno != EINTR) require(errno, "wait4");
    if (WIFEXITED(status)) end.exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
    auto const seconds = [](timeval time) { return double(time.tv_sec) + double(time.tv_usec) / 1e6; };
    end.cpu_seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
    return end;
}

int child_main(char const* name) {
    rlimit const no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::alarm(hang_after * slowdown);
    for (auto const& [known, body] : programs())
        if (std::strcmp(known, name) == 0) {
            body();
            return 0;
        }
    std::fprintf(stderr, "there is no child program '%s'\n", name);
    return 127;
}

} // namespace weft::test
