#pragma once

#include <weft/runtime/detail/atomics.hpp>

#include <atomic>
#include <cstdint>

namespace weft { namespace detail {

/// The order in which internal locks are taken: a lock's rank is above those already held.
enum class lock_rank : std::uint8_t {
    delivery = 1, // cancellation delivery across groups (a std::mutex: it may be held for long)
    group,        // the children of a task group
    queue,        // waiters of a primitive, a stream, a descriptor
    fiber,        // scopes and joiners of one fiber
    timers,       // a worker's timer heap
    run_queue,    // spawn lists, injection overflow
    memory        // slabs of fibers and stacks, registries
};

#ifdef WEFT_CHECKED
void note_lock_taken(lock_rank);
void note_lock_released(lock_rank) noexcept;
void check_no_lock_held(char const* call) noexcept;
#else
inline void note_lock_taken(lock_rank) {}
inline void note_lock_released(lock_rank) noexcept {}
inline void check_no_lock_held(char const*) noexcept {}
#endif

void wait_for_spinlock(std::atomic<std::uint8_t>& state) noexcept;

/// Mutual exclusion for a few instructions. One byte; never held across a switch, an allocation or
/// user code. A waiter spins and then gives its time slice away: on a virtual machine the holder's
/// core may be stopped.
template <lock_rank Rank, class Atomics = hardware_atomics> class spinlock {
public:
    spinlock() = default;
    spinlock(spinlock const&) = delete;
    spinlock& operator=(spinlock const&) = delete;

    void lock() noexcept {
        note_lock_taken(Rank);
        if (state_.exchange(1, Atomics::acquire) != 0) wait_for_spinlock(state_); // pairs with unlock()
    }
    bool try_lock() noexcept {
        if (state_.exchange(1, Atomics::acquire) != 0) return false; // pairs with unlock()
        note_lock_taken(Rank);
        return true;
    }
    void unlock() noexcept {
        note_lock_released(Rank);
        state_.store(0, Atomics::release); // pairs with lock(): the last access to the owner
    }

    /// Around fork(), where all are held, in no order.
    void lock_for_fork() noexcept {
        if (state_.exchange(1, Atomics::acquire) != 0) wait_for_spinlock(state_); // pairs with unlock()
    }
    void unlock_after_fork() noexcept { state_.store(0, Atomics::release); } // pairs with lock()

private:
    typename Atomics::template atomic<std::uint8_t> state_{0};
};

}} // namespace weft::detail
