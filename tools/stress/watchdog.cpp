#include "watchdog.hpp"

#include <weft/runtime/inspect.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <iostream>
#include <unistd.h>
#include <utility>

namespace stress {

namespace {

constexpr std::chrono::seconds time_for_dump(10 * int(slowdown));

std::atomic<std::uint64_t> operations = 0;

// Of the current round. A copy: the watchdog may ask when a round has just ended.
std::mutex line_lock; // never across a suspension
std::string const line_between_rounds = "weft-stress (between rounds)";
std::string line = line_between_rounds;
char last_words[256]; // the same, ready for a signal handler

std::string line_for(trial const& round) {
    std::string made = "weft-stress --seed " + std::to_string(round.seed) + " --workers " +
                       std::to_string(round.workers);
    if (round.backend != "epoll") made += " --backend " + round.backend;
    return made + " " + round.mode;
}

void say_last_words() {
    (void)!write(STDERR_FILENO, last_words, strnlen(last_words, sizeof last_words));
}

std::atomic<bool> as_json = false;

std::string quoted(std::string const& text) {
    std::string made = "\"";
    for (char const each : text) {
        if (each == '"' || each == '\\') made += '\\';
        made += static_cast<unsigned char>(each) < ' ' ? ' ' : each;
    }
    return made + '"';
}

void tell(std::string const& failure) {
    std::string const replay = replay_line();
    std::fprintf(stderr, "\n%s\nreplay: %s\n", failure.c_str(), replay.c_str());
    std::fflush(stderr);
    if (!as_json) return;
    std::printf("{\"failure\":%s,\"replay\":%s}\n", quoted(failure).c_str(), quoted(replay).c_str());
    std::fflush(stdout);
}

// Dumped in a thread of its own: what hangs may hold a lock that it needs.
[[noreturn]] void dump_tasks_and_abort() {
    std::promise<void> dumped;
    std::thread([&dumped] {
        weft::dump_tasks(std::cerr);
        std::cerr.flush();
        dumped.set_value();
    }).detach();
    if (dumped.get_future().wait_for(time_for_dump) != std::future_status::ready)
        std::fputs("the dump of the tasks hangs as well: something holds a lock\n", stderr);
    std::abort(); // a core shows the threads
}

// The first line of a crash; then whatever was there before, for its own report or a core.
extern "C" void report_crash(int signal) {
    say_last_words();
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

} // namespace

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
extern "C" void __sanitizer_set_death_callback(void (*)());
#endif

void report_crashes() {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(say_last_words);
#else
    for (int const signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) {
        struct sigaction action {};
        action.sa_handler = report_crash;
        action.sa_flags = SA_ONSTACK;
        sigaction(signal, &action, nullptr);
    }
#endif
}

void report_as_json() { as_json = true; }

void progress(std::uint64_t more) noexcept { operations.fetch_add(more, std::memory_order_relaxed); }
std::uint64_t operations_done() { return operations; }

void set_current_round(trial const* now) {
    std::lock_guard const guard(line_lock);
    line = now != nullptr ? line_for(*now) : line_between_rounds;
    std::snprintf(last_words, sizeof last_words, "\nreplay: %s\n", line.c_str());
}

std::string replay_line() {
    std::lock_guard const guard(line_lock);
    return line;
}

void violation(std::string const& rule, std::source_location where) {
    static std::atomic<bool> reported = false;
    if (reported.exchange(true))
        for (;;) // the first one says it, and ends the process
            ::pause();
    tell("violated: " + rule + " (" + where.file_name() + ":" + std::to_string(where.line()) + ")");
    std::_Exit(1);
}

watchdog::watchdog(unsigned patience_seconds, bool show_progress)
    : patience_(patience_seconds), show_progress_(show_progress), thread_([this] { watch(); }) {}

watchdog::~watchdog() {
    {
        std::lock_guard const guard(mutex_);
        over_ = true;
    }
    changed_.notify_one();
    thread_.join();
    if (show_progress_) std::fputs("\r\033[K", stderr);
}

void watchdog::watch() {
    using namespace std::chrono;
    auto last_move = steady_clock::now();
    std::uint64_t seen = operations, shown = seen;
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, seconds(1), [this] { return over_; })) {
        std::uint64_t const now = operations;
        if (now != seen) last_move = steady_clock::now();
        seen = now;
        if (show_progress_)
            std::fprintf(stderr, "\r\033[K%llu rounds, %llu operations/s", (unsigned long long)(rounds_),
                         (unsigned long long)(now - std::exchange(shown, now)));
        if (steady_clock::now() - last_move < seconds(patience_)) continue;
        tell("no progress for " + std::to_string(patience_) + " s");
        dump_tasks_and_abort();
    }
}

} // namespace stress
