#include <weft/sync/latch.hpp>

#include "claimed_waiters.hpp"

#include <mutex>
#include <stdexcept>

namespace weft {

latch::latch(std::ptrdiff_t expected) : left_(expected) {
    if (expected < 0) throw std::invalid_argument("a latch cannot expect a negative number");
}

void latch::count_down(std::ptrdiff_t update) {
    arrive(update);
}

// Whom it wakes may destroy the latch at once: the last one touches nothing afterwards (M15).
bool latch::arrive(std::ptrdiff_t update) {
    if (update < 0) throw std::invalid_argument("a latch cannot be counted up");
    detail::claimed_waiters woken;
    bool too_far = false;
    bool is_last = false;
    {
        std::lock_guard const guard(queue_);
        too_far = update > left_;
        if (!too_far) {
            left_ -= update;
            is_last = left_ == 0;
            if (is_last) woken.claim_all(queue_);
        }
    }
    woken.deliver_all();
    if (too_far) throw std::logic_error("a latch was counted down below zero");
    return is_last;
}

// With the lock: who sees zero may destroy the latch, so the one who brought it there must be out.
bool latch::try_wait() const noexcept {
    std::lock_guard const guard(queue_);
    return left_ == 0;
}

void latch::wait() {
    detail::enter_blocking_call("latch.wait");
    wait_until_open("latch.wait");
}

void latch::arrive_and_wait(std::ptrdiff_t update) {
    detail::enter_blocking_call("latch.arrive_and_wait");
    if (!arrive(update)) wait_until_open("latch.arrive_and_wait");
}

void latch::wait_until_open(char const* call) {
    if (try_wait()) return;
    detail::parking wait(call);
    detail::wait_node node(wait);
    {
        std::lock_guard const guard(queue_);
        if (left_ == 0) {
            wait.withdraw(); // if a canceller was first: it finds the task at its next call (M3)
            return;
        }
        queue_.waiters.push_back(node);
    }
    if (wait.suspend() != detail::wake_reason::cancelled) return;
    queue_.leave(node);
    detail::throw_cancelled(wait.owner());
}

} // namespace weft
