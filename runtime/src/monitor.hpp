#pragma once

#include "stall_report.hpp"

#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include <sched.h>

namespace weft::detail {

class runtime;
struct worker;

/// What a thread has from the one that starts it: which signals it blocks, where it runs, how it is scheduled. Noted
/// of one thread, so that another has it, whoever starts that.
class thread_settings {
public:
    thread_settings() noexcept; // the calling thread's
    void adopt() const noexcept; // by the calling thread, as far as it may

private:
    sigset_t signals_;
    int slack_;
    int policy_ = SCHED_OTHER;
    sched_param priority_{};
    cpu_set_t cpus_;
    bool knows_cpus_;
};

/// A thread that looks after workers which a fiber keeps busy: it runs their timers and polls their
/// descriptors when they have not done so for a while, notes who has no time left, and reports stalls. Sleeps for
/// good while all workers sleep. A run with one worker has none before there is a deadline, or much to give back.
class monitor {
public:
    explicit monitor(runtime&);
    ~monitor();
    monitor(monitor const&) = delete;
    monitor& operator=(monitor const&) = delete;

    /// Once it can be found by the workers; again, or after stop(), in vain. Any thread.
    /// Errors: std::system_error, bad_alloc
    void start();
    void stop() noexcept; // joins the thread
    bool reports_stalls() const noexcept { return stalls_.is_on(); }

    /// A worker woke up while the monitor dozed.
    void rouse() noexcept;

private:
    void watch();
    void look_after_workers() noexcept;
    void note_load(worker&, bool asleep) noexcept;
    bool doze(std::unique_lock<std::mutex>&);

    struct load { // of a worker: looks at which it had not slept since the one before
        std::uint64_t sleeps = 0;
        unsigned looks = 0;
    };

    runtime& run_;
    stall_detector stalls_;
    std::vector<load> loads_;
    std::mutex mutex_;
    std::condition_variable changed_;
    thread_settings const settings_; // of run()'s thread
    bool ending_ = false;
    std::thread thread_;
};

} // namespace weft::detail
