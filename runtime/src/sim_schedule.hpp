#pragma once

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/time.hpp>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>

namespace weft::detail {

/// The order of a "sim" run: which ready fiber is next, and what time it is. Drawn from the seed, so
/// that the same seed gives the same run; with seed 0 and one worker strictly first in, first out.
class sim_schedule {
public:
    sim_schedule(std::uint64_t seed, unsigned workers)
        : random_(seed * 2 + workers), fifo_(seed == 0 && workers <= 1) {}

    void push(fiber& runnable) { ready_.push_back(&runnable); }
    bool empty() const { return ready_.empty(); }
    fiber* pop();

    /// How many calls a fiber may complete before it yields: a source of preemption.
    std::int16_t draw_budget();

    time_point now() const noexcept {
        return time_point(duration(now_.load(std::memory_order_relaxed))); // one thread writes it
    }
    void jump_to(time_point when) noexcept {
        if (when > now()) now_.store(when.time_since_epoch().count(), std::memory_order_relaxed);
    }

    /// For tests: called with each fiber that is about to let others run, on its own stack and after it
    /// has published its wait. May cancel, must not wait.
    std::function<void(fiber&)> on_suspension;

private:
    std::uint64_t draw(std::uint64_t below);

    std::uint64_t random_;
    bool fifo_;
    std::deque<fiber*> ready_;
    std::atomic<duration::rep> now_ = 0;
};

} // namespace weft::detail
