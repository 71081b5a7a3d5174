#pragma once

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/fiber.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace weft::detail {

class timer_heap;

struct cancel_cause {
    std::string reason; // as given to cancel()
    std::string text;   // what `cancelled` shows
};

/// What the runtime does with scopes beyond their public face: the walk, the timers, the delivery.
struct scope_access {
    using flag = std::uint32_t;
    static constexpr flag called = cancel_scope::called;
    static constexpr flag shielding = cancel_scope::shielding;
    static constexpr flag provisional = cancel_scope::provisional;

    static flag flags(cancel_scope const& of) noexcept {
        return of.flags_.load(std::memory_order_seq_cst); // pairs with mark() and set_shield()
    }
    static fiber* owner(cancel_scope const& of) noexcept {
        return of.owner_.load(std::memory_order_acquire); // pairs with enter()
    }
    static cancel_scope* outer(cancel_scope const& of) noexcept { return of.outer_; }
    static std::shared_ptr<cancel_cause const> const& cause(cancel_scope const& of) noexcept {
        return of.cause_; // once `called` is seen
    }
    static unsigned unwinding(cancel_scope const& of) noexcept { return of.unwinding_; }
    static std::uint32_t& timer_slot(cancel_scope& of) noexcept { return of.timer_slot_; }
    static std::uint16_t& timer_heap_number(cancel_scope& of) noexcept { return of.timer_heap_; }
    static std::atomic<std::uint32_t>& firing(cancel_scope& of) noexcept { return of.firing_; }

    static void set_flag(cancel_scope& of, flag set) noexcept {
        of.flags_.fetch_or(set, std::memory_order_seq_cst); // pairs with flags()
    }
    static void clear_flag(cancel_scope& of, flag cleared) noexcept {
        of.flags_.fetch_and(~cleared, std::memory_order_seq_cst); // pairs with flags()
    }
    /// A scope that no fiber enters: the base of a child of start().
    static void place(cancel_scope& of, cancel_scope* outer, unsigned unwinding, flag set) noexcept {
        of.outer_ = outer;
        of.unwinding_ = std::uint16_t(unwinding);
        of.flags_.fetch_or(set, std::memory_order_seq_cst); // pairs with flags(): outer_ before it
    }

    /// Decides the cause, once. False: it was decided before.
    static bool mark(cancel_scope&, bool by_deadline, std::string reason) noexcept;
    /// The same for one that goes the way of another one, around it: for that one's cause, null if unknown.
    static void mark_along(cancel_scope&, std::shared_ptr<cancel_cause const> cause) noexcept;
    static void deadline_reached(cancel_scope&, time_point now) noexcept;
    /// Its deadline has passed, and it was not left. No lock of a fiber is held.
    static bool is_too_late(cancel_scope const&) noexcept;
    static time_point now(cancel_scope const&) noexcept;
    static bool timed_out(cancel_scope const& of) noexcept {
        flag const both = cancel_scope::caught | cancel_scope::by_deadline;
        return (flags(of) & both) == both;
    }
    /// Its cancellation has reached all that it reaches; new waits see it themselves.
    static bool is_delivered(cancel_scope const& of) noexcept {
        return (flags(of) & cancel_scope::delivered) != 0;
    }
    static constexpr flag delivered = cancel_scope::delivered;
    static bool is_of_start(cancel_scope const& of) noexcept {
        return (flags(of) & cancel_scope::of_start) != 0;
    }
    static constexpr flag of_start = cancel_scope::of_start;

    /// What a cancellation point of this fiber throws.
    static cancelled make_cancelled(fiber&);
    /// What that of a fiber that waits would throw, or null. Any thread.
    static std::exception_ptr make_pending(fiber&);

    /// Puts the deadlines of the fiber's scopes into a timer heap, those that are not there yet. To be
    /// called before the fiber waits, yields or lets children run, and by what never does. Errors: bad_alloc.
    static void arm_deadlines(fiber& of) {
        if (of.has_unarmed_scopes) arm_all(of);
    }
    static bool is_timed(cancel_scope const& of) noexcept { // under the owner's lock
        return (of.flags_.load(std::memory_order_relaxed) & cancel_scope::timed) != 0; // lock
    }
    /// Of a scope that was left: waits for timers that are being delivered.
    static void disarm(cancel_scope&, fiber& self) noexcept;
    static time_point effective_deadline(fiber& of) noexcept;

    /// To be called before a deadline is set for it: runtime::watch(). Any thread; takes the owner's lock.
    static void have_watched(cancel_scope&, fiber& owner) noexcept;
    static void unlink(cancel_scope&, fiber& self, bool swallowed) noexcept; // under its lock
    static timer_heap& timers_of(cancel_scope&, fiber& owner) noexcept;
    static void arm(cancel_scope&, fiber& owner, time_point when); // under the owner's lock
    /// The same where it may have a timer; max(): none. Errors: bad_alloc, only where it had none.
    static void set_timer(cancel_scope&, fiber& owner, time_point when); // under the owner's lock

private:
    static bool is_first_to_mark(cancel_scope&) noexcept; // then it must set `called`
    static void arm_all(fiber& of);
};

/// The scope whose cancellation is visible from this one outwards to a fiber with so many exceptions in
/// flight, or null. The walker is not finished, so every scope around it exists; its lock is held.
///
/// `open_end`: if the walk comes to a scope whose place may just be changing (start()), *open_end is set
/// and the answer means nothing; null: the caller holds the delivery lock, and no place changes.
cancel_scope const* visible_cancellation(cancel_scope const* innermost, fiber const& walker,
                                         unsigned unwinding, bool* open_end) noexcept;

/// The same for the calling fiber; takes the locks it needs. If there is nothing to be seen until a
/// scope is left or a canceller comes by, the fiber's hint is cleared. Afterwards the scope may be gone: if it
/// is the caller's of a start() from which another task takes the fiber away. So the cause comes along.
cancel_scope const* nearest_cancelled(fiber& self,
                                      std::shared_ptr<cancel_cause const>* cause = nullptr) noexcept;

/// Whether its next cancellation point throws, as far as others can know (C34), deadlines that have passed
/// included. False once finished. For the cause it must be known to wait, or to go on from a wait just now;
/// then a deadline counts once it has cancelled its scope.
bool has_pending_cancellation(fiber&, std::shared_ptr<cancel_cause const>* cause = nullptr) noexcept;

/// Tells the fiber, and the children of its groups at any depth, to look; ends the waits of those that
/// are cancelled. The fiber may have ended meanwhile. When it returns, all those waits are won.
///
void deliver_cancellation(fiber&) noexcept;
/// The same for a scope of the fiber's that was cancelled; if it was so before (not `first`), and all was
/// told of it, there is nothing to do. The scope is not touched unless it is found among those that the
/// fiber is in: the fiber may have left it, and it may be gone.
void deliver_cancellation(fiber&, cancel_scope const& cause, bool first) noexcept;

/// Held while the tree of groups changes its shape, or is walked downwards.
std::mutex& delivery_mutex() noexcept;
void deliver_locked(fiber&) noexcept; // with it held

} // namespace weft::detail
