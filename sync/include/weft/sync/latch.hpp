#pragma once

#include <weft/runtime/detail/wait_queue.hpp>

#include <cstddef>
#include <limits>

namespace weft {

/// A counter that goes down to zero once, and lets those through who wait for that. As std::latch.
///
/// Threads       wait(), arrive_and_wait(): any task; the rest: any thread
/// Cancellation  wait() and arrive_and_wait() are cancellation points. wait() leaves nothing behind;
///               arrive_and_wait() has counted down if it was waiting (progress)
/// Errors        std::logic_error (counted below zero); std::invalid_argument (a negative number);
///               no_event_loop_error
/// Source        std::latch
class latch {
public:
    static constexpr std::ptrdiff_t max() noexcept { return std::numeric_limits<std::ptrdiff_t>::max(); }

    explicit latch(std::ptrdiff_t expected);
    latch(latch const&) = delete;
    latch& operator=(latch const&) = delete;

    void count_down(std::ptrdiff_t update = 1);
    bool try_wait() const noexcept;
    void wait();
    void arrive_and_wait(std::ptrdiff_t update = 1);

private:
    bool arrive(std::ptrdiff_t update); // true: the last one, and the latch may be gone
    void wait_until_open(char const* call);

    mutable detail::wait_queue queue_;
    std::ptrdiff_t left_; // under the lock
};

} // namespace weft
