#pragma once

#include "storm.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>

namespace stress {

/// The round that runs now, for replay lines; null between rounds.
void set_current_round(trial const*);

/// The command that repeats the current round.
std::string replay_line();

/// From now on a crash, too, prints the replay line.
void report_crashes();

/// From now on a violation or a standstill is told on standard output as well, as one line of JSON.
void report_as_json();

/// Operations that all storms reported so far.
std::uint64_t operations_done();

/// A thread that ends the process when nothing has moved for a while: with every task and what it
/// waits for, and the replay line. On a terminal it also shows how the storm is doing.
class watchdog {
public:
    watchdog(unsigned patience_seconds, bool show_progress);
    ~watchdog();

    void round_done() { ++rounds_; }

private:
    void watch();

    unsigned const patience_;
    bool const show_progress_;
    std::atomic<std::uint64_t> rounds_ = 0;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool over_ = false;
    std::thread thread_;
};

} // namespace stress
