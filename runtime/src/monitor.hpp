#pragma once

#include "stall_report.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>

namespace weft::detail {

class runtime;

/// A thread that looks after workers which a fiber keeps busy: it runs their timers and polls their
/// descriptors when they have not done so for a while, and reports stalls. Sleeps for good while all workers sleep.
class monitor {
public:
    explicit monitor(runtime&);
    ~monitor();
    monitor(monitor const&) = delete;
    monitor& operator=(monitor const&) = delete;

    void start(); // once it can be found by the workers. Errors: std::system_error

    /// A worker woke up while the monitor dozed.
    void rouse() noexcept;

private:
    void watch();
    void look_after_workers() noexcept;
    bool doze(std::unique_lock<std::mutex>&);

    runtime& run_;
    stall_detector stalls_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool ending_ = false;
    std::thread thread_;
};

} // namespace weft::detail
