#pragma once

#include <weft/runtime/detail/wait_queue.hpp>

namespace weft::detail {

/// Waiters whose waits were won under a primitive's lock, and who are let go after it was released.
///
/// Nothing runs under the lock but claims. Since a waiter goes on only when it is delivered, nobody who
/// was woken can destroy the primitive before the waker has released its lock, which is the waker's
/// last access (M15).
class claimed_waiters {
public:
    void add(wait_node& node) noexcept { nodes_.push_back(node); }

    /// Wins the waits of everybody in the queue; those who were cancelled first just leave it. Under
    /// the lock.
    void claim_all(wait_queue& queue, wake_reason reason = wake_reason::event) noexcept {
        while (wait_node* const node = queue.claim_front(reason))
            add(*node);
    }

    /// Without the lock.
    void deliver_all() noexcept {
        while (wait_node* const node = nodes_.pop_front())
            wait_queue::deliver(*node);
    }

private:
    wait_list nodes_;
};

} // namespace weft::detail
