#pragma once

#include <weft/runtime/detail/wait_queue.hpp>

#include <cstddef>

namespace weft {

/// Counts work that is under way; wait() returns when there is none.
///
/// Unlike a latch it may grow, and be used again. What is added while others wait is waited for, too;
/// add before the work can be done.
///
/// Threads       wait(): any task; add(), done(): any thread
/// Cancellation  wait() is a cancellation point; it leaves nothing behind
/// Errors        std::logic_error (done() more often than added, more added than can be counted);
///               no_event_loop_error
/// Source        Go sync.WaitGroup
class wait_group {
public:
    wait_group() = default;
    wait_group(wait_group const&) = delete;
    wait_group& operator=(wait_group const&) = delete;

    void add(std::size_t more = 1);
    void done();
    void wait();

private:
    bool is_idle() const noexcept;

    mutable detail::wait_queue queue_;
    std::size_t pending_ = 0; // under the lock
};

} // namespace weft
