#include "lines.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <span>
#include <sys/wait.h>
#include <unistd.h>

namespace {

struct line {
    char const* name;
    void (*measure)(bench::settings const&);
};

constexpr line lines[] = {
    {"yield", bench::yield},
    {"yield_100000", bench::yield_100000},
    {"spawn_join_b1000", bench::spawn_join_b1000},
    {"spawn_join_all", bench::spawn_join_all},
    {"skynet", bench::skynet},
    {"pingpong", bench::pingpong},
    {"chan_mpmc", bench::chan_mpmc},
    {"mutex_uncontended", bench::mutex_uncontended},
    {"mutex_contended", bench::mutex_contended},
    {"parked", bench::parked},
    {"parked_never_started", bench::parked_never_started},
    {"event_broadcast", bench::event_broadcast},
    {"event_broadcast_100000", bench::event_broadcast_100000},
    {"event_set_100000", bench::event_set_100000},
    {"timers", bench::timers},
    {"timeout_ready", bench::timeout_ready},
    {"timeout_armed", bench::timeout_armed},
    {"scope_enter_exit", bench::scope_enter_exit},
    {"entry_check", bench::entry_check},
    {"cancel_parked", bench::cancel_parked},
    {"processes_2gib", bench::processes_2gib},
    {"file_reads", bench::file_reads},
    {"file_reads_random", bench::file_reads_random},
    {"walk_tree", bench::walk_tree},
    {"receive_until", bench::receive_until},
    {"xcall", bench::xcall},
    {"xpost", bench::xpost},
    {"offload", bench::offload},
    {"idle_connections", bench::idle_connections},
    {"idle_connections_4k", bench::idle_connections_4k},
    {"send_file", bench::send_file},
};

constexpr char usage[] = "usage: weft-bench [--list] [--workers N] [--n N] [LINE...]\n"
                         "BENCH_REPS sets the repetitions (5); without LINE: all of them\n";

[[noreturn]] void refuse() {
    std::fputs(usage, stderr);
    std::exit(2);
}

line const& line_named(char const* name) {
    auto const* const found = std::find_if(
        std::begin(lines), std::end(lines), [&](line const& l) { return !std::strcmp(l.name, name); });
    if (found == std::end(lines)) refuse();
    return *found;
}

unsigned long number(int& argument, std::span<char*> arguments) {
    if (++argument == int(arguments.size())) refuse();
    char* end = nullptr;
    unsigned long const value = std::strtoul(arguments[argument], &end, 10);
    if (*end != '\0' || value == 0) refuse();
    return value;
}

int measure(line const& chosen, bench::settings const& with) {
    try {
        chosen.measure(with);
        return 0;
    } catch (std::exception const& failure) {
        std::fprintf(stderr, "%s: %s\n", chosen.name, failure.what());
        return 1;
    }
}

// Each in a process of its own: memory figures are those of the line, and none warms another's pools.
bool measure_in_child(line const& chosen, bench::settings const& with) {
    pid_t const child = fork();
    if (child == 0) std::_Exit(measure(chosen, with));
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

} // namespace

int main(int argc, char** argv) {
    bench::settings with;
    std::vector<line> chosen;
    std::span<char*> const arguments(argv, std::size_t(argc));
    for (int i = 1; i < argc; ++i) {
        if (!std::strcmp(argv[i], "--list")) {
            for (line const& known : lines)
                std::puts(known.name);
            return 0;
        }
        if (!std::strcmp(argv[i], "--workers"))
            with.workers = unsigned(number(i, arguments));
        else if (!std::strcmp(argv[i], "--n"))
            with.n = number(i, arguments);
        else
            chosen.push_back(line_named(argv[i]));
    }
    if (char const* const repetitions = std::getenv("BENCH_REPS"))
        with.repetitions = std::max(1, std::atoi(repetitions));
    if (chosen.empty()) chosen.assign(std::begin(lines), std::end(lines));
    bool good = true;
    for (line const& one : chosen)
        good = measure_in_child(one, with) && good;
    return good ? 0 : 1;
}
