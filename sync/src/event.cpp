#include <weft/sync/event.hpp>

#include "crowd.hpp"

#include <atomic>
#include <mutex>

// States of the queue's word, written under its lock:
//
//   unset    waiters queue up
//   set      nobody queues any more, but the call of set() may still hold the lock
//   settled  somebody has taken the lock since: no call of set() that changes anything is under way
//
// wait() goes through without the lock only in `settled`. In `set` it takes the lock first, so that the
// waiter, who may destroy the event, cannot do so under the feet of set() (EV6).

namespace weft {

namespace {

constexpr std::uint32_t is_unset = 0;
constexpr std::uint32_t is_set_now = 1;
constexpr std::uint32_t is_settled = 2;

std::atomic_ref<std::uint32_t> word(detail::wait_queue& queue) {
    return std::atomic_ref(queue.state);
}

} // namespace

bool event::is_set() const noexcept {
    return word(queue_).load(std::memory_order_acquire) != is_unset; // pairs with set()
}

void event::set() {
    if (is_set()) return;
    detail::crowd woken;
    {
        std::lock_guard const guard(queue_);
        if (word(queue_).load(std::memory_order_relaxed) != is_unset) return; // under the lock
        word(queue_).store(is_set_now, std::memory_order_release); // pairs with is_set() and wait()
        woken.claim_all(queue_);
    }
    woken.deliver_all();
}

void event::wait() {
    detail::enter_blocking_call("event.wait");
    std::uint32_t const state = word(queue_).load(std::memory_order_acquire); // pairs with set() and settle()
    if (state == is_settled) return;
    if (state == is_set_now) return settle();
    wait_in_queue();
}

void event::settle() {
    std::lock_guard const guard(queue_);
    word(queue_).store(is_settled, std::memory_order_release); // pairs with wait()
}

void event::wait_in_queue() {
    detail::parking wait("event.wait");
    detail::crowd::place place(wait);
    {
        std::lock_guard const guard(queue_);
        if (word(queue_).load(std::memory_order_relaxed) != is_unset) { // under the lock
            word(queue_).store(is_settled, std::memory_order_release);  // pairs with wait()
            wait.withdraw(); // if a canceller was first: it finds the task at its next call (M3)
            return;
        }
        detail::crowd::push_back(queue_, place);
    }
    if (wait.suspend() != detail::wake_reason::cancelled) return; // the node was taken out
    {
        std::lock_guard const guard(queue_);
        detail::crowd::remove(queue_, place);
    }
    detail::throw_cancelled(wait.owner());
}

event_statistics event::statistics() const {
    std::lock_guard const guard(queue_);
    return {detail::crowd::size(queue_)};
}

} // namespace weft
