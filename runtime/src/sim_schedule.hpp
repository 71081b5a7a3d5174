#pragma once

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/time.hpp>

#include <atomic>
#include <cstdint>
#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

namespace weft::detail {

/// The chances of a "sim" run: which worker goes on, which of its ready fibers, when it takes one from
/// another worker, how long a fiber may run, which of two timers with one deadline is first. All of them
/// are drawn from the seed, so that the same seed gives the same run. With seed 0 and one worker nothing
/// is drawn: strictly first in, first out.
///
/// The workers are queues: one thread runs what they hold, a fiber at a time.
class sim_schedule {
public:
    sim_schedule(std::uint64_t seed, unsigned workers);

    void push(fiber& runnable) noexcept; // to the worker that runs now
    bool empty() const { return ready_ == 0; }
    fiber* pop();

    /// How many calls a fiber may complete before it yields: a source of preemption.
    std::int16_t draw_budget();
    /// Where a new timer stands among those of the same deadline.
    std::uint64_t draw_timer_order();

    time_point now() const noexcept {
        return time_point(duration(now_.load(std::memory_order_relaxed))); // one thread writes it
    }
    void jump_to(time_point when) noexcept {
        if (when <= now()) return;
        now_.store(when.time_since_epoch().count(), std::memory_order_relaxed); // as above
    }

    /// For tests: called with each fiber that is about to let others run, on its own stack and after it
    /// has published its wait. May cancel, must not wait.
    std::function<void(fiber&)> on_suspension;

    // What may end a wait from outside: see detail::outside_work.
    unsigned calls_outside = 0; // threads are at work for tasks that wait
    unsigned doors = 0;         // portals

private:
    using queue = std::deque<fiber*>;

    std::uint64_t draw(std::uint64_t below);
    fiber* take(queue&, std::size_t place);
    fiber* steal();

    std::uint64_t random_;
    bool const fifo_;
    std::vector<queue> queues_; // one a worker
    std::size_t here_ = 0;      // the worker that runs
    std::size_t ready_ = 0;     // in all queues, and aside
    fiber* aside_ = nullptr;    // found no memory; through `next`
    fiber* aside_last_ = nullptr;
    std::uint64_t timers_ = 0;
    std::atomic<duration::rep> now_ = 0;
};

} // namespace weft::detail
