#include "chaos.hpp"

#include <weft/io/resource.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/process.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <string>
#include <sys/wait.h>
#include <system_error>

namespace stress {

namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// Polite ones, deaf ones, those that flood, that hang up and live on, that leave others behind.
// Who sleeps for long is the process itself: kill() ends nobody else.
constexpr char const* programs[] = {
    "true",
    "exit 3",
    "kill -9 $$",
    "exec sleep 1000",
    "trap '' TERM; exec sleep 1000",
    "trap 'exit 4' TERM; sleep 1 & wait",
    "yes",
    "yes >&2",
    "yes & yes >&2 & wait",
    "cat",
    "cat >&2",
    "exec <&- >&- 2>&-; exec sleep 1000",
    "sleep 1 & exit 0",
    "kill -STOP $$",
};

weft::process_options options_from(random_source& random) {
    weft::process_options options{.check = false};
    options.grace_period = milliseconds(random.below(4) * 5);
    options.start_new_session = random.one_in(8);
    if (random.one_in(4)) options.stderr_ = weft::stdio::standard_output;
    return options;
}

std::string program_from(random_source& random) {
    return programs[random.below(std::size(programs))];
}

void run_one(random_source& random) {
    weft::process_options options = options_from(random);
    if (random.one_in(2)) options.input = std::string(random.below(300'000), 'x');
    weft::run_process(program_from(random), std::move(options));
}

void echo_faithfully(random_source& random) {
    std::string const text(random.between(1, 500'000), char('a' + random.below(26)));
    require(weft::run_process({"cat"}, {.input = text}).stdout_data == text,
            "what a process is fed comes back");
}

void fail_to_start() {
    try {
        weft::open_process({"/no/such/program"});
    } catch (std::system_error const& failure) {
        require(failure.code().value() == ENOENT, "what does not exist is ENOENT");
        return;
    }
    require(false, "what does not exist cannot be started");
}

// Whoever comes last has to end it.
void open_one(random_source& random) {
    weft::process child = weft::open_process(program_from(random), options_from(random));
    for (std::uint64_t i = random.below(4); i > 0; --i) {
        wait_somehow(random);
        switch (random.below(5)) {
        case 0: child.terminate(); break;
        case 1: child.kill(); break;
        case 2: child.stdin_stream()->close(); break;
        case 3: (void)child.returncode(); break;
        default: weft::move_on_after(microseconds(random.below(2000)), [&] { child.wait(); });
        }
    }
    if (random.one_in(3)) return; // dropped
    if (random.one_in(2)) return weft::close_forcefully(child);
    child.close();
    require(child.returncode().has_value(), "a process that was closed has ended");
}

void do_something(random_source& random) {
    switch (random.below(8)) {
    case 0: return fail_to_start();
    case 1: return echo_faithfully(random);
    case 2:
    case 3:
    case 4: return open_one(random);
    default: return run_one(random);
    }
}

} // namespace

void process_storm(trial& now) {
    std::uint64_t const tasks = now.random.between(1, 12);
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t task = 0; task < tasks; ++task)
                group.start_soon([random = now.random.split()]() mutable {
                    for (int round = 0; round < 4; ++round) {
                        weft::move_on_after(microseconds(random.below(20'000)),
                                            [&] { do_something(random); });
                        progress();
                    }
                });
            if (now.random.one_in(4)) {
                weft::sleep(microseconds(now.random.below(30'000)));
                group.cancel();
            }
        });
    });
    ::siginfo_t info{};
    require(::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == ECHILD,
            "no child is left after run(), dead or alive");
}

} // namespace stress
