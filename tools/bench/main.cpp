#include "lines.hpp"
#include "tools/command_line.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <getopt.h>
#include <span>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

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

constexpr ::option known[] = {
    {"list", no_argument, nullptr, 'l'}, {"workers", required_argument, nullptr, 'w'},
    {"n", required_argument, nullptr, 'n'}, {"help", no_argument, nullptr, 'H'},
    {},
};

line const& line_named(char const* name) {
    auto const* const found = std::find_if(
        std::begin(lines), std::end(lines), [&](line const& l) { return !std::strcmp(l.name, name); });
    if (found == std::end(lines))
        command_line::refuse("there is no line '" + std::string(name) + "'; --list names them");
    return *found;
}

[[noreturn]] void list_lines() {
    for (line const& one : lines)
        std::puts(one.name);
    std::exit(0);
}

struct arguments {
    bench::settings settings;
    std::vector<line> chosen;
};

arguments parse(int argc, char** argv) {
    using command_line::number;
    arguments given;
    for (int found; (found = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        switch (found) {
        case 'l': list_lines();
        case 'w':
            given.settings.workers = number<unsigned>("--workers", optarg, 1, command_line::most_workers);
            break;
        case 'n': given.settings.n = number<std::size_t>("--n", optarg, 1, 1'000'000'000); break;
        case 'H': command_line::explain(usage);
        default: command_line::refuse();
        }
    }
    for (char const* name : std::span(argv + optind, argv + argc))
        given.chosen.push_back(line_named(name));
    if (given.chosen.empty()) given.chosen.assign(std::begin(lines), std::end(lines));
    if (char const* const repetitions = std::getenv("BENCH_REPS"))
        given.settings.repetitions = number<int>("BENCH_REPS", repetitions, 1, 1'000'000);
    return given;
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
    pid_t const self = getpid();
    pid_t const child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); // whoever ends this program ends the measurement
        std::_Exit(getppid() == self ? measure(chosen, with) : 1);
    }
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

} // namespace

int main(int argc, char** argv) {
    arguments const given = parse(argc, argv);
    bool good = true;
    for (line const& one : given.chosen)
        good = measure_in_child(one, given.settings) && good;
    return good ? 0 : 1;
}
