#include <weft/sync/condition_variable.hpp>

#include "claimed_waiters.hpp"

#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>

namespace weft {

void condition_variable::check_held(char const* call) const {
    if (!mutex_->is_owned_by(detail::require_fiber(call)))
        throw std::logic_error(std::string(call) + ": the current task does not hold the mutex");
}

detail::fiber& condition_variable::enter_wait() const {
    detail::fiber& self = detail::enter_blocking_call("condition_variable.wait");
    check_held("condition_variable.wait");
    return self;
}

// The waiter is in the queue before it lets the mutex go, so that no notification passes in between.
// Once notified it touches the mutex only: whoever notified everybody may have destroyed the rest (M15).
// Rejected: moving notified waiters to the mutex's queue. They would have to be armed anew there, since a
// cancellation no longer counts (CD4). Each passes through once, with or without that: notifications go
// to those who have waited longest, but of those that one call has woken any may have the mutex first (M11).
void condition_variable::wait() {
    detail::fiber& self = enter_wait();
    mutex& shared = *mutex_;
    detail::parking wait("condition_variable.wait");
    detail::wait_node node(wait);
    {
        std::lock_guard const guard(queue_);
        queue_.waiters.push_back(node);
    }
    shared.unlock();
    detail::wake_reason const why = wait.suspend();
    if (why == detail::wake_reason::cancelled) queue_.leave(node);
    shared.lock_uncancellably();
    if (why == detail::wake_reason::cancelled) detail::throw_cancelled(self);
}

void condition_variable::notify(std::size_t how_many) {
    check_held("condition_variable.notify");
    detail::claimed_waiters woken;
    {
        std::lock_guard const guard(queue_);
        for (; how_many > 0; --how_many) {
            detail::wait_node* const node = queue_.claim_front();
            if (node == nullptr) break;
            woken.add(*node);
        }
    }
    woken.deliver_all();
}

void condition_variable::notify_all() {
    notify(std::numeric_limits<std::size_t>::max());
}

condition_statistics condition_variable::statistics() const {
    condition_statistics seen;
    seen.lock_statistics = mutex_->statistics();
    std::lock_guard const guard(queue_);
    seen.tasks_waiting = queue_.waiters.size();
    return seen;
}

} // namespace weft
