#pragma once

#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/sync/mutex.hpp>

#include <cstddef>
#include <functional>
#include <utility>

namespace weft {

struct condition_statistics {
    std::size_t tasks_waiting = 0;
    weft::lock_statistics lock_statistics;
};

/// Waits, under a mutex, until another task says that something has changed.
///
/// wait() lets the mutex go and takes it again before it returns or throws, but for a mutex whose owner
/// has ended meanwhile without unlocking it: nobody can have that again. Nobody wakes without being
/// notified, but others may have been at the data between the notification and the return: wait with a
/// predicate. A notification goes to tasks that wait, oldest first; with nobody there it is lost.
///
/// Threads       every member by the task that holds the mutex; statistics(): any thread
/// Cancellation  wait() is a cancellation point; on entry it throws without having let the mutex go,
///               later it takes the mutex again first, however long that may take
/// Errors        std::logic_error (the task does not hold the mutex); broken_resource_error (wait():
///               the mutex is broken, and unlocking it does nothing); no_event_loop_error
/// Source        AnyIO Condition
class condition_variable {
public:
    condition_variable() noexcept : mutex_(&own_) {}
    explicit condition_variable(mutex& shared) noexcept : mutex_(&shared) {}
    condition_variable(condition_variable const&) = delete;
    condition_variable& operator=(condition_variable const&) = delete;

    mutex& lock() noexcept { return *mutex_; } ///< for std::unique_lock; it is not locked yet
    void wait();
    /// Looks first; a predicate that is true at once ends it without letting the mutex go.
    template <class Predicate> void wait(Predicate predicate) {
        enter_wait();
        while (!std::invoke(predicate))
            wait();
    }
    void notify(std::size_t how_many = 1);
    void notify_all();
    condition_statistics statistics() const;

private:
    void check_held(char const* call) const;
    detail::fiber& enter_wait() const;

    mutex own_;
    mutex* mutex_;
    mutable detail::wait_queue queue_;
};

} // namespace weft
