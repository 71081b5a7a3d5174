#pragma once

#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/sync/error.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace weft {

/// `max_value`: release() past it is an error. `fast_acquire`: acquire() does not count against the
/// task's budget.
struct semaphore_options {
    std::optional<std::size_t> max_value{};
    bool fast_acquire = false;
};

struct semaphore_statistics {
    std::size_t tasks_waiting = 0;
};

/// A counter of permits; acquire() waits while there are none.
///
/// Fair: release() hands its permit to the task that has waited longest, so one that arrives later
/// cannot take it first. A cancelled waiter leaves without consuming a permit.
///
/// Threads       acquire(): any task; the rest: any thread
/// Cancellation  acquire() is a cancellation point, even when a permit is free; it leaves nothing behind
/// Errors        would_block (acquire_nowait); std::logic_error (release past max_value);
///               std::invalid_argument (it starts above max_value); no_event_loop_error
/// Source        AnyIO Semaphore
class semaphore {
public:
    explicit semaphore(std::size_t initial, semaphore_options = {});
    semaphore(semaphore const&) = delete;
    semaphore& operator=(semaphore const&) = delete;

    void acquire();
    bool try_acquire() noexcept;
    void acquire_nowait(); ///< the same; throws would_block where try_acquire() is false
    void release();
    std::size_t value() const noexcept;
    std::optional<std::size_t> max_value() const noexcept;
    semaphore_statistics statistics() const;

private:
    void take_or_wait();
    void hand_over();

    std::atomic<std::uint64_t> word_;  // see semaphore.cpp
    std::uint64_t max_;
    mutable detail::wait_queue queue_; // its word: 1 for fast_acquire
};

} // namespace weft
