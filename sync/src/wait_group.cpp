#include <weft/sync/wait_group.hpp>

#include "claimed_waiters.hpp"

#include <limits>
#include <mutex>
#include <stdexcept>

namespace weft {

void wait_group::add(std::size_t more) {
    std::lock_guard const guard(queue_);
    if (more > std::numeric_limits<std::size_t>::max() - pending_)
        throw std::logic_error("a wait_group was given more work than it can count");
    pending_ += more;
}

void wait_group::done() {
    detail::claimed_waiters woken;
    bool too_often = false;
    {
        std::lock_guard const guard(queue_);
        too_often = pending_ == 0;
        if (!too_often && --pending_ == 0) woken.claim_all(queue_);
    }
    woken.deliver_all();
    if (too_often) throw std::logic_error("wait_group::done() was called more often than work was added");
}

// With the lock: who sees zero may destroy the group, so the one who brought it there must be out.
bool wait_group::is_idle() const noexcept {
    std::lock_guard const guard(queue_);
    return pending_ == 0;
}

void wait_group::wait() {
    detail::enter_blocking_call("wait_group.wait");
    if (is_idle()) return;
    detail::parking wait("wait_group.wait");
    detail::wait_node node(wait);
    {
        std::lock_guard const guard(queue_);
        if (pending_ == 0) {
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
