#include "support/run_test.hpp"

#include "io/src/io_state.hpp"
#include "runtime/src/runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <optional>
#include <thread>

#include <dirent.h>

namespace weft::test {

namespace {

using namespace std::chrono_literals;

constexpr unsigned most_suspension_points = 10'000; // past this the body never runs through
constexpr auto hang_after = 60s; // less than what meson allows

unsigned count_entries(char const* directory) {
    DIR* const open = ::opendir(directory);
    if (open == nullptr) throw failure(std::string(directory) + " cannot be read");
    unsigned count = 0;
    while (::readdir(open) != nullptr)
        ++count;
    ::closedir(open);
    return count - 2; // . and ..
}

struct belongings {
    unsigned descriptors = count_entries("/proc/self/fd") - 1; // that of the directory
    std::size_t stacks = detail::stack_depot::stacks_in_use();
    std::uint32_t io_states = detail::open_io_states();
};

void check_nothing_left(belongings const& before) {
    if (auto const tasks = get_running_tasks(); !tasks.empty())
        throw failure(std::to_string(tasks.size()) + " tasks are left, among them '" +
                      tasks.front().name + "'");
    belongings const after;
    if (after.descriptors != before.descriptors)
        throw failure("there were " + std::to_string(before.descriptors) +
                      " file descriptors before the run and " + std::to_string(after.descriptors) +
                      " after it");
    if (after.stacks != before.stacks)
        throw failure("there were " + std::to_string(before.stacks) +
                      " stacks in use before the run and " + std::to_string(after.stacks) + " after it");
    if (after.io_states != before.io_states)
        throw failure("there were " + std::to_string(before.io_states) +
                      " states of descriptors before the run and " + std::to_string(after.io_states) +
                      " after it");
}

// In the first task, when everything else has ended.
void check_no_timer_left() {
    for (auto const& each : detail::this_worker()->run_of.workers)
        if (each->timers.size() != 0) throw failure("a timer is left");
}

// Ends a process that hangs, with a picture of what it hangs in.
class watchdog {
public:
    explicit watchdog(std::string const& what) : what_(what), thread_([this] { watch(); }) {}
    ~watchdog() {
        {
            std::lock_guard const guard(mutex_);
            done_ = true;
        }
        changed_.notify_one();
        thread_.join();
    }
    watchdog(watchdog const&) = delete;
    watchdog& operator=(watchdog const&) = delete;

private:
    void watch() {
        std::unique_lock lock(mutex_);
        if (changed_.wait_for(lock, hang_after * slowdown, [this] { return done_; })) return;
        std::cerr << what_ << " hangs:\n";
        dump_tasks(std::cerr);
        std::cerr.flush();
        std::abort();
    }

    std::string const& what_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool done_ = false;
    std::thread thread_;
};

std::string describe(run_options const& options) {
    if (options.backend == "sim")
        return "the run under \"sim\" with seed " + std::to_string(options.seed) +
               " (again: WEFT_TEST_SEED=" + std::to_string(options.seed) + ")";
    return "the run on " + std::to_string(options.workers) + " workers";
}

void run_once(run_options const& options, std::function<void()> const& body) {
    std::string const what = describe(options);
    belongings const before;
    try {
        watchdog const guard(what);
        run(options, [&body] {
            body();
            check_no_timer_left();
        });
    } catch (std::exception const& problem) {
        throw failure(what + ": " + problem.what());
    } catch (...) { // the test framework's own, say
        std::fprintf(stderr, "%s failed\n", what.c_str());
        throw;
    }
    try {
        check_nothing_left(before);
    } catch (failure const& problem) {
        throw failure("after " + what + ": " + problem.what());
    }
}

std::optional<std::uint64_t> wanted_seed() {
    char const* const text = std::getenv("WEFT_TEST_SEED");
    if (text == nullptr || *text == '\0') return {};
    return std::strtoull(text, nullptr, 10);
}

run_options sim_options(run_options base, std::uint64_t seed) {
    base.backend = "sim";
    base.workers = 1;
    base.seed = seed;
    return base;
}

} // namespace

void check(bool holds, std::string const& what, std::source_location where) {
    if (holds) return;
    std::string file = where.file_name();
    throw failure(file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line()) +
                  ": it does not hold: " + what);
}

void run_test(std::function<void()> const& body) {
    run_test({}, body);
}

void run_test(run_test_options const& options, std::function<void()> const& body) {
    if (auto const seed = wanted_seed()) return run_once(sim_options(options.base, *seed), body);
    for (std::uint64_t const seed : options.seeds)
        run_once(sim_options(options.base, seed), body);
    for (unsigned time = 0; time < options.times; ++time)
        for (unsigned const workers : options.workers) {
            run_options threads = options.base;
            threads.backend = "epoll";
            threads.workers = workers;
            run_once(threads, body);
        }
}

void run_sim(std::uint64_t seed, std::function<void()> const& body) {
    run_once(sim_options({}, seed), body);
}

void explore(std::uint64_t seeds, std::function<void()> const& body) {
    if (auto const seed = wanted_seed()) return run_sim(*seed, body);
    for (std::uint64_t seed = 0; seed < seeds; ++seed)
        run_sim(seed, body);
}

bool attempt::run(std::function<void()> const& body) {
    if (std::exchange(used_, true)) throw failure("attempt::run() is for one call");
    auto& hook = detail::this_worker()->run_of.sim->on_suspension;
    cancel_scope scope;
    unsigned suspensions = 0;
    hook = [&](detail::fiber&) {
        if (++suspensions != point_) return;
        cancelled_ = true;
        scope.cancel("suspension point " + std::to_string(point_));
    };
    struct unhook {
        std::function<void(detail::fiber&)>& hook;
        ~unhook() { hook = nullptr; }
    } const guard{hook};
    return scope.run(body);
}

unsigned cancel_at_every_suspension_point(std::function<void(attempt&)> const& test) {
    unsigned points = 0;
    std::vector<std::uint64_t> seeds{0, 1, 2};
    if (auto const seed = wanted_seed()) seeds = {*seed};
    for (std::uint64_t const seed : seeds)
        for (unsigned point = 1;; ++point) {
            if (point > most_suspension_points) throw failure("the body never runs through");
            attempt at(point);
            try {
                run_sim(seed, [&] { test(at); });
            } catch (failure const& problem) {
                throw failure("cancelled at suspension " + std::to_string(point) + ", " +
                              problem.what());
            }
            if (!at.used_) throw failure("the test called no attempt::run()");
            if (!at.cancelled()) break;
            points = std::max(points, point);
        }
    return points;
}

unsigned count_threads() {
    return count_entries("/proc/self/task");
}

void wait_for_threads(unsigned at_most) {
    while (count_threads() > at_most)
        std::this_thread::yield();
}

} // namespace weft::test
