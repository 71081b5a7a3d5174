#include "leftovers.hpp"
#include "reaper.hpp"
#include "storm.hpp"
#include "tools/command_line.hpp"
#include "watchdog.hpp"

#include <weft/runtime/exception_group.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <getopt.h>
#include <limits>
#include <optional>
#include <random>
#include <span>
#include <unistd.h>
#include <vector>

namespace {

using namespace stress;
using clock_type = std::chrono::steady_clock;

struct mode {
    char const* name;
    void (*storm)(trial&);
    char const* what;
};

constexpr mode modes[] = {
    {"spawn", spawn_storm, "trees of tasks, spawners on OS threads: each runs once"},
    {"steal", steal_storm, "migrating fibers: errno, exceptions and pins survive"},
    {"cancel", cancel_storm, "cancellations from everywhere, shields, deadlines, unwinding"},
    {"timer", timer_storm, "sleeps and deadlines that race with what they limit"},
    {"group", group_storm, "nested groups, start(), failures: all are reported once"},
    {"event", event_storm, "broadcasts, late and impatient waiters, events that end at once"},
    {"mutex", mutex_storm, "exclusion, fairness, waiters that leave"},
    {"semaphore", semaphore_storm, "permits are neither lost nor made, whoever gives up"},
    {"condition", condition_storm, "a queue out of conditions: what is put is taken, the mutex is held"},
    {"limiter", limiter_storm, "tokens, borrowers, totals that change"},
    {"shared", shared_storm, "readers together, writers alone"},
    {"meeting", meeting_storm, "latches, barriers, wait groups: nobody is early"},
    {"future", future_storm, "one outcome, seen by tasks, threads and callbacks"},
    {"combinators", combinators_storm, "gather, race, map, as_completed: all in its place, nothing goes on"},
    {"portal", portal_storm, "eight threads call a portal that is stopped and started again"},
    {"thread", thread_storm, "calls in threads, abandoned and not, and back from there"},
    {"channel", channel_storm, "items arrive once and in order, or not at all"},
    {"socket", socket_storm, "echoes, cancelled transfers, abrupt ends"},
    {"file", file_storm, "what was reported as written is there, temporaries vanish"},
#if defined(WEFT_STRESS_TLS)
    {"tls", tls_storm, "octets come back, whatever breaks, whoever gives up"},
#endif
    {"process", process_storm, "processes that are cancelled, killed, dropped, deaf: none is left"},
#if __has_include(<cereal/cereal.hpp>)
    {"worker_process", worker_process_storm, "calls elsewhere, whose processes are killed at random"},
#endif
};

// For the test of this program: chosen by name only.
constexpr mode failing_modes[] = {
    {"violate", violating_storm, "breaks a rule"},
    {"hang", hanging_storm, "waits for ever"},
};

struct arguments {
    std::optional<std::uint64_t> seed;
    unsigned seconds = 5;
    unsigned workers = 0; // 0: drawn
    unsigned patience = 20;
    std::string backend = "epoll";
    bool until_fail = false;
    bool json = false;
    std::vector<mode> chosen;
};

constexpr char usage[] =
    "usage: weft-stress [--list] [--seed N] [--seconds S] [--workers N] [--backend NAME] [--patience S]\n"
    "                   [--until-fail] [--json] [MODE...]\n"
    "\n"
    "Each mode for S seconds (5), in rounds whose parameters come from a seed; without MODE: all of\n"
    "them, as --list tells. What breaks a rule, or does not move for a while (--patience, 20 s), ends the\n"
    "program with the line that replays the round; --json tells it on standard output, too.\n";

constexpr ::option known[] = {
    {"list", no_argument, nullptr, 'l'},           {"seed", required_argument, nullptr, 's'},
    {"seconds", required_argument, nullptr, 't'},  {"workers", required_argument, nullptr, 'w'},
    {"backend", required_argument, nullptr, 'b'},  {"patience", required_argument, nullptr, 'p'},
    {"until-fail", no_argument, nullptr, 'u'},     {"json", no_argument, nullptr, 'j'},
    {"help", no_argument, nullptr, 'H'},           {},
};

[[noreturn]] void list_modes() {
    for (mode const& one : modes)
        std::printf("%-11s %s\n", one.name, one.what);
    std::exit(0);
}

mode const& mode_named(char const* name) {
    for (mode const& one : modes)
        if (!std::strcmp(one.name, name)) return one;
    for (mode const& one : failing_modes)
        if (!std::strcmp(one.name, name)) return one;
    command_line::refuse("there is no mode '" + std::string(name) + "'; --list names them");
}

std::string backend_named(char const* name) {
    for (std::string const& one : weft::all_backends())
        if (one == name) return one;
    command_line::refuse("--backend: there is no backend '" + std::string(name) + "'");
}

arguments parse(int argc, char** argv) {
    using command_line::number;
    constexpr unsigned longest = 1'000'000'000; // seconds
    arguments given;
    for (int found; (found = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        switch (found) {
        case 'l': list_modes();
        case 's':
            given.seed = number<std::uint64_t>("--seed", optarg, 0, std::numeric_limits<std::uint64_t>::max());
            break;
        case 't': given.seconds = number<unsigned>("--seconds", optarg, 0, longest); break;
        case 'w': given.workers = number<unsigned>("--workers", optarg, 0, command_line::most_workers); break;
        case 'b': given.backend = backend_named(optarg); break;
        case 'p': given.patience = number<unsigned>("--patience", optarg, 1, longest); break;
        case 'u': given.until_fail = true; break;
        case 'j': given.json = true; break;
        case 'H': command_line::explain(usage);
        default: command_line::refuse();
        }
    }
    for (char const* name : std::span(argv + optind, argv + argc))
        given.chosen.push_back(mode_named(name));
    if (given.chosen.empty()) given.chosen.assign(std::begin(modes), std::end(modes));
    return given;
}

bool starts_processes(mode const& chosen) {
    return std::strstr(chosen.name, "process") != nullptr;
}

// Not from the round's own source: fixing the workers leaves the other parameters as they are.
unsigned workers_for(std::uint64_t seed, arguments const& given) {
    if (given.workers != 0) return given.workers;
    if (given.backend == "sim") return 1;
    constexpr unsigned choices[] = {1, 2, 2, 3, 4, 4, 8};
    return choices[random_source(~seed).below(std::size(choices))];
}

void run_round(mode const& chosen, std::uint64_t seed, arguments const& given) {
    trial now{chosen.name, seed, workers_for(seed, given), given.backend};
    set_current_round(&now);
    leftovers const before;
    try {
        chosen.storm(now);
    } catch (std::exception const& failure) {
        violation(std::string("a storm throws nothing, not ") + failure.what());
    } catch (...) {
        violation("a storm throws nothing, not even what is no std::exception");
    }
    before.check();
    set_current_round(nullptr);
}

void report(mode const& chosen, std::uint64_t rounds, std::uint64_t operations, double seconds,
            bool json) {
    std::printf(json ? "{\"mode\":\"%s\",\"rounds\":%llu,\"operations\":%llu,\"seconds\":%.3f}\n"
                     : "%-11s %8llu rounds %12llu operations %8.1f s\n",
                chosen.name, (unsigned long long)rounds, (unsigned long long)operations, seconds);
    std::fflush(stdout);
}

// The first round's seed is the given one: that is what a replay line repeats.
void run_mode(mode const& chosen, std::uint64_t seed, arguments const& given, watchdog& dog) {
    auto const start = clock_type::now();
    std::uint64_t const operations_before = operations_done();
    random_source seeds(seed);
    std::uint64_t rounds = 0;
    do {
        run_round(chosen, rounds == 0 ? seed : seeds(), given);
        dog.round_done();
        progress();
        ++rounds;
    } while (clock_type::now() - start < std::chrono::seconds(given.seconds));
    std::chrono::duration<double> const spent = clock_type::now() - start;
    report(chosen, rounds, operations_done() - operations_before, spent.count(), given.json);
}

} // namespace

int main(int argc, char** argv) {
    arguments const given = parse(argc, argv);
    if (std::ranges::any_of(given.chosen, starts_processes)) live_below_a_reaper();
    report_crashes();
    if (given.json) report_as_json();
    watchdog dog(given.patience, isatty(STDERR_FILENO) != 0);
    random_source seeds(given.seed ? *given.seed : std::random_device()());
    bool first = true;
    do {
        for (mode const& chosen : given.chosen) {
            run_mode(chosen, first && given.seed ? *given.seed : seeds(), given, dog);
        }
        first = false;
    } while (given.until_fail);
    return 0;
}
