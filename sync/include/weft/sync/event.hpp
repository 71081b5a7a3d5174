#pragma once

#include <weft/runtime/detail/wait_queue.hpp>

#include <cstddef>

namespace weft {

struct event_statistics {
    std::size_t tasks_waiting = 0;
};

/// A gate that is opened once: wait() lets nobody through before set(), and everybody after it.
///
/// It cannot be closed again. A task that comes back from wait() may destroy the event, also while the
/// call of set() that woke it has not returned; who only saw is_set() may not.
///
/// Threads       set(), is_set(), statistics(): any thread, also outside of a run; wait(): any task
/// Cancellation  wait() is a cancellation point, also when the event is set; it leaves nothing behind
/// Errors        no_event_loop_error (wait() outside a task)
/// Source        AnyIO Event
class event {
public:
    event() = default;
    event(event const&) = delete;
    event& operator=(event const&) = delete;

    void set();                ///< idempotent
    bool is_set() const noexcept;
    void wait();
    event_statistics statistics() const;

private:
    void settle();
    void wait_in_queue();

    mutable detail::wait_queue queue_; // its word: one of the states of event.cpp
};

static_assert(sizeof(event) == 16);

} // namespace weft
