#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace weft::detail {

/// Runnable fibers in any number: of OS threads and other runs, for all workers; or what no longer fits
/// into a worker's ring. moodycamel::ConcurrentQueue with a counter of our own: its "empty" is no proof,
/// and asking it costs more the more producers there are.
class injection_queue {
public:
    /// Who pushes: threads that come and go, which share a few producers, one at a time each; or one.
    enum class producers : bool { many, one };

    explicit injection_queue(producers);
    ~injection_queue();

    void push(fiber&) noexcept;                                        // many: any thread
    void push_own(fiber&) noexcept;                                    // one: that thread
    void push_own(fiber* const* items, std::size_t count) noexcept;    //  "

    /// Up to `most`; 0: nothing to be had just now. Any thread.
    std::size_t take(fiber** out, std::size_t most) noexcept;

    /// False only if nothing was pushed before, in the single total order of seq_cst operations.
    bool empty() const noexcept { return count_.load(std::memory_order_seq_cst) == 0; } // push()
    std::size_t size() const noexcept { return count_.load(std::memory_order_relaxed); } // a hint

private:
    struct queue;

    void push_aside(fiber&) noexcept;
    std::size_t take_aside(fiber** out, std::size_t most) noexcept;

    alignas(64) std::atomic<std::size_t> count_ = 0; // raised before, lowered after
    spinlock<lock_rank::run_queue> aside_lock_;
    std::atomic<bool> has_aside_ = false;
    fiber* aside_ = nullptr; // when the queue could get no memory
    fiber* aside_last_ = nullptr;
    std::unique_ptr<queue> queue_;
};

} // namespace weft::detail
