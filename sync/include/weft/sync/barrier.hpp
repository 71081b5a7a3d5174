#pragma once

#include <weft/sync/detail/barrier_core.hpp>

#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {
struct no_completion {
    void operator()() const noexcept {}
};
} // namespace detail

/// A meeting point, used again and again: who arrives waits until all have arrived. As std::barrier.
///
/// The last to arrive runs the completion function, and then everybody goes on to the next phase. One
/// that is cancelled while it waits has arrived all the same; it must not come back in that phase.
///
/// Threads       wait(), arrive_and_wait(): any task; the rest: any thread
/// Cancellation  wait() and arrive_and_wait() are cancellation points. wait() leaves nothing behind;
///               arrive_and_wait() has arrived if it was waiting (progress)
/// Errors        std::logic_error (more arrive than are expected); std::invalid_argument (a negative
///               number; none to arrive); no_event_loop_error
/// Source        std::barrier
template <class Completion = detail::no_completion> class barrier {
public:
    static_assert(std::is_nothrow_invocable_v<Completion&>);

    class [[nodiscard]] arrival_token {
    public:
        arrival_token(arrival_token&&) noexcept = default;
        arrival_token& operator=(arrival_token&&) noexcept = default;

    private:
        friend class barrier;
        explicit arrival_token(std::uint64_t of) : phase_(of) {}
        std::uint64_t phase_;
    };

    static constexpr std::ptrdiff_t max() noexcept { return std::numeric_limits<std::ptrdiff_t>::max(); }

    explicit barrier(std::ptrdiff_t expected, Completion completion = Completion())
        : core_(expected), completion_(std::move(completion)) {}
    barrier(barrier const&) = delete;
    barrier& operator=(barrier const&) = delete;

    arrival_token arrive(std::ptrdiff_t update = 1) {
        return arrival_token(arrive_and_complete(update, false).phase);
    }
    void wait(arrival_token&& token) const {
        detail::enter_blocking_call("barrier.wait");
        core_.wait(token.phase_, "barrier.wait");
    }
    void arrive_and_wait() {
        detail::enter_blocking_call("barrier.arrive_and_wait");
        if (auto const mine = arrive_and_complete(1, false); !mine.last)
            core_.wait(mine.phase, "barrier.arrive_and_wait");
    }
    void arrive_and_drop() { arrive_and_complete(1, true); }

private:
    detail::barrier_core::arrival arrive_and_complete(std::ptrdiff_t update, bool and_drop) {
        detail::barrier_core::arrival const mine = core_.arrive(update, and_drop);
        if (mine.last) {
            completion_();
            core_.complete();
        }
        return mine;
    }

    mutable detail::barrier_core core_;
    Completion completion_;
};

} // namespace weft
