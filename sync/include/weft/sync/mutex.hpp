#pragma once

#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/sync/detail/mutex_word.hpp>
#include <weft/sync/error.hpp>

#include <cstddef>
#include <optional>

namespace weft {

namespace detail {
struct mutex_access;
}

/// `fast_acquire`: lock() does not count against the task's budget, so that a task that locks often
/// yields less often.
struct mutex_options {
    bool fast_acquire = false;
};

struct lock_statistics {
    bool locked = false;
    std::optional<task_info> owner;
    std::size_t tasks_waiting = 0;
};

/// Lets one task in at a time; the others wait in the order in which they came.
///
/// Fair: unlock() hands the mutex to the task that has waited longest, so one that arrives later cannot
/// take it first. Not recursive. It may be held while the task waits, which a std::mutex may not; works
/// with std::unique_lock and std::scoped_lock. A cancelled waiter never comes to own it. If its owner ends
/// without unlocking it, all who wait for it and all who come later are refused, and unlock() does nothing;
/// in checked builds the task also fails with a std::logic_error, and tasks that wait for each other's
/// mutexes are reported.
///
/// Threads       lock(), try_lock(), acquire_nowait(), unlock(): any task; the rest: any thread
/// Cancellation  lock() is a cancellation point, also when the mutex is free; it leaves nothing behind
/// Errors        std::logic_error (locked by its owner; unlocked by another task); std::length_error (a
///               task holds 65,535 at most); would_block (acquire_nowait); broken_resource_error (its
///               owner has ended without unlocking it); no_event_loop_error
/// Source        AnyIO Lock
class mutex {
public:
    mutex() noexcept : mutex(mutex_options{}) {}
    explicit mutex(mutex_options options) noexcept { queue_.state = options.fast_acquire ? 1 : 0; }
    mutex(mutex const&) = delete;
    mutex& operator=(mutex const&) = delete;

    void lock();
    bool try_lock();
    void acquire_nowait(); ///< the same; throws would_block where try_lock() is false
    void unlock();
    bool locked() const noexcept;
    lock_statistics statistics() const;

private:
    friend class condition_variable;
    friend struct detail::mutex_access;

    void lock_uncancellably(); // after a wait under a condition variable
    void take_or_wait(detail::fiber& self, char const* call, detail::cancellable);
    bool take_if_free(detail::fiber& self);
    void count_owned(detail::fiber& self);
    bool let_go(detail::fiber const& self);
    bool is_owned_by(detail::fiber const&) const noexcept;
    bool is_orphaned();
    void break_waits() noexcept;
    void report_cycle(detail::fiber& self); // in checked builds

    detail::mutex_word<> word_;
    mutable detail::wait_queue queue_; // its word: 1 for fast_acquire
};

static_assert(sizeof(mutex) <= 32);

} // namespace weft
