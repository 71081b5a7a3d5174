#pragma once

#include <weft/runtime/detail/task_identity.hpp>
#include <weft/runtime/detail/wait_queue.hpp>

#include <cstddef>
#include <cstdint>

namespace weft {

namespace detail {
class claimed_waiters;
}

/// Lets in either one task that writes or any number that read, as std::shared_mutex does.
///
/// Fair: whoever waits longest is next, so that a stream of readers cannot keep a writer out; readers
/// that come behind a waiting writer wait. Works with std::unique_lock and std::shared_lock. Not
/// recursive, for readers neither.
///
/// Threads       any task. The exclusive lock is given back by the task that took it
/// Cancellation  lock() and lock_shared() are cancellation points, also when nobody is inside; they leave
///               nothing behind
/// Errors        std::logic_error (locked by its writer; unlocked by one who does not hold it);
///               no_event_loop_error
/// Source        std::shared_mutex
class shared_mutex {
public:
    shared_mutex() = default;
    shared_mutex(shared_mutex const&) = delete;
    shared_mutex& operator=(shared_mutex const&) = delete;

    void lock();
    bool try_lock();
    void unlock();
    void lock_shared();
    bool try_lock_shared();
    void unlock_shared();

private:
    enum class access : std::uint64_t { shared, exclusive };

    bool fits(access) const;                         // under the lock
    void enter(access, detail::fiber const&);             //  "
    void admit(detail::claimed_waiters&);            //  "
    bool try_enter(access, char const* call);
    void enter_or_wait(access, char const* call);

    detail::wait_queue queue_;     // its word: the readers inside
    detail::task_identity writer_; // or none. Under the lock
};

} // namespace weft
