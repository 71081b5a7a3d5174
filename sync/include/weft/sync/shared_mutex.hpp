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
///               std::length_error (more mutexes than a task can hold); no_event_loop_error. In checked
///               builds a task that ends as its writer fails with std::logic_error; it stays locked
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
    void enter(access, detail::fiber const&);        //  "
    void admit(detail::claimed_waiters&);            //  "
    bool try_enter(access, char const* call);
    void enter_or_wait(access, char const* call);
    void count_owned(); // the lock that the current task has just taken
    bool leave_as_writer(detail::fiber const&);

    detail::wait_queue queue_;     // its word: the readers inside
    detail::task_identity writer_; // or none. Under the lock
};

} // namespace weft
