#include <weft/sync/semaphore.hpp>

#include <algorithm>
#include <limits>
#include <mutex>
#include <stdexcept>

// The word: twice the number of permits, plus a mark that somebody may be waiting.
//
//   2n        n permits           acquire: CAS to 2(n-1) (A1). release: CAS to 2(n+1) (R1)
//   0         none, nobody waits  a waiter, under the queue's lock: CAS to the mark (A2), then it queues
//   1 (mark)  none, there may be  changes under the lock only: release gives its permit to the first
//             waiters             whose wait can still be won (R2), or takes the mark off (R3)
//
// I1  With a waiter in the queue there is no permit to take (SM3, SM6).
// I2  The last access of release() is R1, or the unlock after R2, or another round after R3: whoever got
//     the permit may destroy the semaphore.

namespace weft {

namespace {

constexpr std::uint64_t mark = 1;
constexpr std::uint64_t permit = 2;
constexpr std::uint64_t most_permits = std::numeric_limits<std::uint64_t>::max() / permit;

} // namespace

semaphore::semaphore(std::size_t initial, semaphore_options options)
    : word_(initial * permit),
      max_(std::min<std::uint64_t>(options.max_value.value_or(most_permits), most_permits)) {
    if (initial > max_)
        throw std::invalid_argument(
            "the initial value of a semaphore must be neither negative nor above max_value");
    queue_.state = options.fast_acquire ? 1 : 0;
}

bool semaphore::try_acquire() noexcept {
    std::uint64_t seen = word_.load(std::memory_order_relaxed); // the CAS decides
    while (seen >= permit)
        if (word_.compare_exchange_weak(seen, seen - permit, std::memory_order_acquire, // A1: with R1
                                        std::memory_order_relaxed)) // tried again
            return true;
    return false;
}

void semaphore::acquire_nowait() {
    if (!try_acquire()) throw would_block("the semaphore has no permit left");
}

void semaphore::acquire() {
    if (queue_.state == 0)
        detail::enter_blocking_call("semaphore.acquire");
    else
        detail::check_cancellation("semaphore.acquire");
    if (!try_acquire()) take_or_wait();
}

void semaphore::take_or_wait() {
    detail::parking wait("semaphore.acquire");
    detail::wait_node node(wait);
    queue_.lock();
    for (std::uint64_t none = 0;
         !word_.compare_exchange_weak(none, mark, std::memory_order_relaxed) && none != mark; // A2
         none = 0) {
        if (!try_acquire()) continue;
        queue_.unlock();
        wait.withdraw(); // if a canceller was first: it finds the task at its next call (M3)
        return;
    }
    queue_.waiters.push_back(node);
    queue_.unlock();
    if (wait.suspend() != detail::wake_reason::cancelled) return; // R2 has given us a permit
    queue_.leave(node);
    detail::throw_cancelled(wait.owner());
}

void semaphore::release() {
    std::uint64_t seen = word_.load(std::memory_order_relaxed); // the CAS decides
    for (;;) {
        if (seen / permit >= max_) throw std::logic_error("semaphore released too many times");
        if (seen == mark) return hand_over();
        if (word_.compare_exchange_weak(seen, seen + permit, std::memory_order_release, // R1: with A1
                                        std::memory_order_relaxed)) // tried again
            return;
    }
}

void semaphore::hand_over() {
    {
        std::unique_lock guard(queue_);
        detail::wait_node* const next = queue_.claim_front();
        if (next != nullptr) { // R2
            if (queue_.waiters.empty()) word_.store(0, std::memory_order_relaxed); // we own the mark
            guard.unlock();
            detail::wait_queue::deliver(*next);
            return;
        }
        std::uint64_t marked = mark;
        word_.compare_exchange_strong(marked, 0, std::memory_order_relaxed); // R3
    }
    release();
}

std::size_t semaphore::value() const noexcept {
    return std::size_t(word_.load(std::memory_order_relaxed) / permit); // a snapshot
}

std::optional<std::size_t> semaphore::max_value() const noexcept {
    if (max_ == most_permits) return std::nullopt;
    return std::size_t(max_);
}

semaphore_statistics semaphore::statistics() const {
    std::lock_guard const guard(queue_);
    return {queue_.waiters.size()};
}

} // namespace weft
