#pragma once

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/time.hpp>

namespace weft::detail {

struct worker;

/// The entry of a blocking-style call: throws `cancelled` if a visible scope is cancelled, yields if
/// the fiber's budget is used up, else costs two loads and a branch. Gives the calling fiber.
fiber& enter_blocking_call(char const* call);

/// The same for a call that found nothing to wait for and does not count against the budget.
fiber& check_cancellation(char const* call);

/// lowlevel::checkpoint(), under the name of the call that it is made for.
void checkpoint_in(char const* call);

/// Throws `cancelled` with the reason of the scope that is responsible.
[[noreturn]] void throw_cancelled(fiber&);

/// Whether the next cancellation point of the current fiber throws, because of what was cancelled: not of a
/// deadline that nobody has noticed yet.
bool is_cancelled(fiber& self) noexcept;

/// What the next cancellation point of a fiber would throw, or null. For a thread that does the fiber's work and
/// knows that it waits for that, or goes on from this wait just now. Errors: bad_alloc
std::exception_ptr pending_cancellation(fiber& waiter);

/// Of the scopes that the current fiber is in: afterwards a wait in them needs no memory, but to throw
/// `cancelled`. For what must not leave between a beginning and its end. Errors: bad_alloc.
void arm_deadlines(fiber& self);

/// The same, and deadlines of the current fiber that have passed are noticed now, although nobody has run the
/// timers since: is_cancelled() knows of them afterwards. Errors: bad_alloc.
void notice_deadlines(fiber& self);

enum class cancellable : bool { no, yes };

/// One wait of the current fiber. Constructed, it is armed: wakers that know reference() may end it.
///
///     parking wait("event.wait");         // throws `cancelled`: nothing has happened
///     queue.lock(); ...enqueue a node that carries wait.epoch()...; queue.unlock();
///     wake_reason why = wait.suspend();   // does not throw
///     ...take the node out of the queue, if it is still there...
///     if (why == wake_reason::cancelled) throw_cancelled(wait.owner());
///
/// Between construction and suspend() nothing may wait. Each parking ends by suspend() or withdraw().
class parking {
public:
    explicit parking(char const* what, cancellable = cancellable::yes);
    parking(parking const&) = delete;
    parking& operator=(parking const&) = delete;

    fiber& owner() const { return *fiber_; }
    std::uint64_t epoch() const { return epoch_; }
    wait_ref reference() const { return {fiber_->index, epoch_}; }

    /// Gives the worker to others until somebody wins the wait.
    wake_reason suspend() noexcept;
    /// The same, but no longer than until the deadline: then wake_reason::timer.
    wake_reason suspend_until(time_point deadline);
    /// suspend() of a fiber that needs that object next, which may lie far up its stack: whoever runs the fibers
    /// before it fetches that page, too.
    wake_reason suspend_before_use_of(void const* object) noexcept;

    /// What was waited for turned out to be there. False: a waker without payload was first, and its
    /// reason counts.
    bool withdraw() noexcept { return fiber_->wait.withdraw(); }
    wake_reason reason() const noexcept { return fiber_->wait.reason(); }

private:
    void prepare_and_arm(char const* what, cancellable);
    void arm(worker const& here, char const* what, cancellable);
    void leave_if_cancelled();

    fiber* fiber_;
    std::uint64_t epoch_;
};

} // namespace weft::detail
