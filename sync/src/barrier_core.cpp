#include <weft/sync/detail/barrier_core.hpp>

#include "claimed_waiters.hpp"

#include <mutex>
#include <stdexcept>

namespace weft::detail {

barrier_core::barrier_core(std::ptrdiff_t expected) : expected_(expected), left_(expected) {
    if (expected < 0) throw std::invalid_argument("a barrier cannot expect a negative number");
}

barrier_core::arrival barrier_core::arrive(std::ptrdiff_t update, bool and_drop) {
    if (update <= 0) throw std::invalid_argument("the number that arrives at a barrier must be positive");
    {
        std::lock_guard const guard(queue_);
        if (update <= left_) {
            if (and_drop) --expected_;
            left_ -= update;
            return {phase_, left_ == 0};
        }
    }
    throw std::logic_error("more arrive at a barrier than it expects");
}

void barrier_core::complete() noexcept {
    claimed_waiters woken;
    {
        std::lock_guard const guard(queue_);
        ++phase_;
        left_ = expected_;
        woken.claim_all(queue_);
    }
    woken.deliver_all();
}

// With the lock: who sees the end of the last phase may destroy the barrier.
bool barrier_core::has_ended(std::uint64_t phase) const noexcept {
    std::lock_guard const guard(queue_);
    return phase_ != phase;
}

void barrier_core::wait(std::uint64_t phase, char const* call) {
    if (has_ended(phase)) return;
    parking wait(call);
    wait_node node(wait);
    {
        std::lock_guard const guard(queue_);
        if (phase_ != phase) {
            wait.withdraw(); // if a canceller was first: it finds the task at its next call (M3)
            return;
        }
        queue_.waiters.push_back(node);
    }
    if (wait.suspend() != wake_reason::cancelled) return;
    queue_.leave(node);
    throw_cancelled(wait.owner());
}

} // namespace weft::detail
