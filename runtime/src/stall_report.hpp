#pragma once

#include <weft/runtime/time.hpp>

#include <cstdint>
#include <vector>

namespace weft::detail {

class runtime;
struct worker;

/// Finds the fibers that keep their worker for longer than run_options::stall_threshold, and reports each
/// once: its name, where it was spawned, and the stack it runs on. For the monitor, whose looks it counts
/// on; the worker is asked by a signal (SIGURG), so that a call which blocks it may be interrupted.
class stall_detector {
public:
    explicit stall_detector(runtime&); // takes over the signal, if it has a threshold
    bool is_on() const noexcept { return threshold_ > duration::zero(); }
    /// How often to look, so that a report is late by a quarter at most.
    duration interval() const noexcept;
    void look(time_point now) noexcept;

private:
    struct watched {
        std::uint32_t tick = 0;
        time_point since{};
        bool reported = false;
    };
    static void report(worker& stalled, std::uint32_t tick, duration since);

    runtime& run_;
    duration threshold_;
    std::vector<watched> workers_;
};

} // namespace weft::detail
