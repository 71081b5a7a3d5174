#include <weft/sync/shared_mutex.hpp>

#include "claimed_waiters.hpp"

#include <limits>
#include <mutex>
#include <stdexcept>

namespace weft {

// More readers than it can count wait until some have left, as std has it.
bool shared_mutex::fits(access how) const {
    constexpr std::uint32_t most_readers = std::numeric_limits<std::uint32_t>::max();
    return writer_ == detail::task_identity{} &&
           (how == access::shared ? queue_.state < most_readers : queue_.state == 0);
}

void shared_mutex::enter(access how, detail::fiber const& who) {
    if (how == access::shared)
        ++queue_.state;
    else
        writer_ = detail::identity_of(who);
}

// Everybody at the front who fits beside those inside.
void shared_mutex::admit(detail::claimed_waiters& admitted) {
    while (detail::wait_node* const first = queue_.waiters.front()) {
        access const how{first->detail};
        if (!fits(how)) return;
        queue_.waiters.remove(*first);
        if (first->waiter->wait.claim_to_fill(first->epoch, detail::wake_reason::event) ==
            detail::wait_word<>::claim_result::lost)
            continue;
        enter(how, *first->waiter);
        admitted.add(*first);
    }
}

bool shared_mutex::try_enter(access how, char const* call) {
    detail::fiber& self = detail::require_fiber(call);
    bool held = false;
    {
        std::lock_guard const guard(queue_);
        held = writer_ == detail::identity_of(self);
        if (queue_.waiters.empty() && fits(how)) {
            enter(how, self);
            return true;
        }
    }
    if (held) throw std::logic_error("the current task holds this shared_mutex already");
    return false;
}

void shared_mutex::enter_or_wait(access how, char const* call) {
    detail::enter_blocking_call(call);
    if (try_enter(how, call)) return;
    detail::parking wait(call);
    detail::wait_node node(wait);
    node.detail = std::uint64_t(how);
    bool entered = false;
    {
        std::lock_guard const guard(queue_);
        if (queue_.waiters.empty() && fits(how)) {
            enter(how, wait.owner());
            entered = true;
        } else {
            queue_.waiters.push_back(node);
        }
    }
    if (entered) {
        wait.withdraw(); // if a canceller was first: it finds the task at its next call (M3)
        return;
    }
    if (wait.suspend() != detail::wake_reason::cancelled) return; // somebody has let us in
    detail::claimed_waiters admitted;
    {
        std::lock_guard const guard(queue_);
        queue_.waiters.remove(node);
        admit(admitted); // readers that waited behind a writer that gave up
    }
    admitted.deliver_all();
    detail::throw_cancelled(wait.owner());
}

// What a task owns counts when it ends (LK8).
void shared_mutex::count_owned() {
    detail::fiber& self = *detail::current_fiber();
    if (++self.owned_mutexes != 0) return;
    --self.owned_mutexes;
    leave_as_writer(self);
    throw std::length_error("the current task holds as many mutexes as it can count");
}

void shared_mutex::lock() {
    enter_or_wait(access::exclusive, "shared_mutex.lock");
    count_owned();
}

bool shared_mutex::try_lock() {
    if (!try_enter(access::exclusive, "shared_mutex.try_lock")) return false;
    count_owned();
    return true;
}

void shared_mutex::lock_shared() {
    enter_or_wait(access::shared, "shared_mutex.lock_shared");
}

bool shared_mutex::try_lock_shared() {
    return try_enter(access::shared, "shared_mutex.try_lock_shared");
}

void shared_mutex::unlock() {
    detail::fiber& self = detail::require_fiber("shared_mutex.unlock");
    if (!leave_as_writer(self)) throw std::logic_error("the current task does not hold this shared_mutex");
    --self.owned_mutexes;
}

bool shared_mutex::leave_as_writer(detail::fiber const& self) {
    detail::claimed_waiters admitted;
    bool held = false;
    {
        std::lock_guard const guard(queue_);
        held = writer_ == detail::identity_of(self);
        if (held) {
            writer_ = {};
            admit(admitted);
        }
    }
    admitted.deliver_all();
    return held;
}

void shared_mutex::unlock_shared() {
    detail::require_fiber("shared_mutex.unlock_shared");
    detail::claimed_waiters admitted;
    bool held = false;
    {
        std::lock_guard const guard(queue_);
        held = queue_.state != 0;
        if (held) {
            --queue_.state;
            admit(admitted);
        }
    }
    admitted.deliver_all();
    if (!held) throw std::logic_error("nobody holds this shared_mutex as a reader");
}

} // namespace weft
