#pragma once

#include <weft/runtime/detail/wait_queue.hpp>

#include <cstddef>
#include <cstdint>

namespace weft::detail {

/// A barrier but for its completion function. Phases are numbered.
class barrier_core {
public:
    /// Errors: std::invalid_argument (negative)
    explicit barrier_core(std::ptrdiff_t expected);
    barrier_core(barrier_core const&) = delete;
    barrier_core& operator=(barrier_core const&) = delete;

    struct arrival {
        std::uint64_t phase;
        bool last; ///< runs the completion function, and then calls complete()
    };
    /// Errors: std::logic_error (more than are expected); std::invalid_argument (none, or negative)
    arrival arrive(std::ptrdiff_t update, bool and_drop);
    /// Begins the next phase and wakes those who wait for the end of this one; they may destroy the barrier.
    void complete() noexcept;
    /// Errors: those of a blocking-style call
    void wait(std::uint64_t phase, char const* call);

private:
    bool has_ended(std::uint64_t phase) const noexcept;

    mutable wait_queue queue_;
    std::uint64_t phase_ = 0;      // under the lock
    std::ptrdiff_t expected_;      //  "
    std::ptrdiff_t left_;          //  "
};

} // namespace weft::detail
