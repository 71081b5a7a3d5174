#pragma once

#include <weft/runtime/detail/parking.hpp>

#include <cstdint>

namespace weft::detail {

/// The waiters of one primitive, with the lock that orders hand-over, cancellation and closing. The
/// word beside the lock is the primitive's own. 16 bytes; must not move while somebody waits.
class wait_queue {
public:
    void lock() noexcept { lock_.lock(); }
    void unlock() noexcept { lock_.unlock(); }

    wait_list waiters;
    std::uint32_t state = 0; // under the lock, for the primitive

    /// Takes the longest waiting one whose wait can still be won, and wins it; the losers leave the
    /// queue. The caller may fill node->payload and must then call deliver(). Under the lock.
    wait_node* claim_front(wake_reason reason = wake_reason::event) noexcept {
        return claim_front_of(waiters, reason);
    }
    static wait_node* claim_front_of(wait_list& list, wake_reason reason) noexcept {
        while (wait_node* const node = list.pop_front())
            if (node->waiter->wait.claim_to_fill(node->epoch, reason) !=
                wait_word<>::claim_result::lost)
                return node;
        return nullptr;
    }

    /// Lets a claimed waiter go. The node may be gone as soon as this is called.
    static void deliver(wait_node& node) noexcept {
        fiber& waiter = *node.waiter;
        if (waiter.wait.deliver()) schedule(waiter);
    }

    /// Wakes everybody. Under the lock; the queue is empty afterwards.
    void wake_all(wake_reason reason = wake_reason::event) noexcept {
        while (wait_node* const node = waiters.pop_front()) {
            fiber& waiter = *node->waiter;
            std::uint64_t const epoch = node->epoch; // the node may be gone once the wait is won
            wake(waiter, epoch, reason);
        }
    }

    /// After a wait: leaves the queue if no waker took the node out.
    void leave(wait_node& node) noexcept {
        lock();
        waiters.remove(node);
        unlock();
    }

private:
    spinlock<lock_rank::queue> lock_;
};

static_assert(sizeof(wait_queue) == 16);

} // namespace weft::detail
