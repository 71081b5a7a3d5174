#include <weft/runtime/detail/parking.hpp>

#include "abort.hpp"
#include "runtime.hpp"
#include "scope_access.hpp"
#include "task.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>

namespace weft::detail {

namespace {

[[gnu::cold]] void refuse_suspension(fiber const& self, char const* call) noexcept {
    die("task '%s' would suspend in %s inside a no_suspend scope", task_name(self).c_str(), call);
}

inline fiber* fiber_of_this_thread() noexcept {
    worker* const here = this_worker();
    return here != nullptr ? here->current.load(std::memory_order_relaxed) : nullptr; // our own
}

[[gnu::cold, gnu::noinline, noreturn]] void refuse_outside_task(char const* call) {
    refuse_in_forked_child(call);
    throw no_event_loop_error(std::string(call) + " needs a task: it was called outside of run()");
}

inline fiber& required(char const* call, worker* const here) {
    fiber* const self = here != nullptr ? here->current.load(std::memory_order_relaxed) : nullptr; // our own
    if (self == nullptr) [[unlikely]]
        refuse_outside_task(call);
    return *self;
}
inline fiber& required(char const* call) {
    return required(call, this_worker());
}

// What never waits is still bound by its deadlines: they are armed where the budget ends (C24). What
// completes at once may be called inside no_suspend; the budget waits for its end.
void yield_if_due(fiber& self, char const* call) {
    if (self.budget >= 0) return;
    scope_access::arm_deadlines(self);
    if (self.suspension_bans == 0) return yield_current(call);
    self.budget = -1; // still due, however many calls follow: it must not wrap
}

// The monitor says that it has run for long: deadlines of which no timer knows are looked at now (C24).
void look_at_clock_if_told(fiber& self) {
    if ((self.attention.load(std::memory_order_relaxed) & attention::clock) == 0) return; // a hint
    self.attention.fetch_and(std::uint8_t(~attention::clock), std::memory_order_relaxed); // a hint
    scope_access::arm_deadlines(self);
}

// attention was set: a cancellation or a deadline perhaps, or the budget is used up. A call that is cut short
// counts, too: who tries on and on after a deadline must not keep the worker to itself.
[[gnu::noinline]] fiber& attend(fiber& self, char const* call) {
    look_at_clock_if_told(self);
    yield_if_due(self, call);
    if ((self.attention.load(std::memory_order_relaxed) & attention::cancel) != 0 && // a hint
        nearest_cancelled(self) != nullptr)
        throw_cancelled(self);
    return self;
}

// For a call that does not count when it succeeds: no budget ends, so the first one arms the deadlines.
// Whoever runs the timers sets attention; if nobody else does, the monitor.
[[gnu::noinline]] fiber& attend_uncounted(fiber& self, char const* call) {
    look_at_clock_if_told(self);
    scope_access::arm_deadlines(self);
    if ((self.attention.load(std::memory_order_relaxed) & attention::cancel) == 0 || // a hint
        nearest_cancelled(self) == nullptr)
        return self;
    --self.budget;
    yield_if_due(self, call);
    throw_cancelled(self);
}

} // namespace

void check_may_suspend(fiber const& self, char const* call) noexcept {
    if (self.suspension_bans != 0) refuse_suspension(self, call);
    check_no_lock_held(call);
}

fiber* current_fiber() noexcept {
    return fiber_of_this_thread();
}

fiber& require_fiber(char const* call) {
    return required(call);
}

fiber& enter_blocking_call(char const* call) {
    fiber& self = required(call);
    if (--self.budget < 0 || self.attention.load(std::memory_order_relaxed) != 0) [[unlikely]] // a hint
        return attend(self, call); // the last call: no frame where there is nothing to do
    return self;
}

fiber& check_cancellation(char const* call) {
    fiber& self = required(call);
    if (self.attention.load(std::memory_order_relaxed) != 0 || self.has_unarmed_scopes) [[unlikely]] // a hint
        return attend_uncounted(self, call);
    return self;
}

[[gnu::always_inline]] static inline void pass_checkpoint(char const* call) {
    fiber& self = check_cancellation(call); // arms the deadlines
    yield_current(call);                    // those that have passed are noticed now
    if (self.attention.load(std::memory_order_relaxed) != 0 && nearest_cancelled(self) != nullptr) // a hint
        throw_cancelled(self);
}

void checkpoint_in(char const* call) {
    pass_checkpoint(call);
}

void arm_deadlines(fiber& self) {
    scope_access::arm_deadlines(self);
}

void throw_cancelled(fiber& self) {
    throw scope_access::make_cancelled(self);
}

parking::parking(char const* what, cancellable how) {
    worker* const here = this_worker();
    fiber& self = required(what, here);
    fiber_ = &self;
    if (self.suspension_bans != 0 || self.has_unarmed_scopes) [[unlikely]] {
        prepare_and_arm(what, how);
        return;
    }
    check_no_lock_held(what);
    arm(*here, what, how);
}

void parking::prepare_and_arm(char const* what, cancellable how) {
    check_may_suspend(*fiber_, what);
    scope_access::arm_deadlines(*fiber_);
    arm(*this_worker(), what, how);
}

inline void parking::arm(worker const& here, char const* what, cancellable how) {
    fiber& self = *fiber_;
    self.waiting_on.store(what, std::memory_order_relaxed); // for reports
    self.waiting_unwinding.store(std::uint8_t(here.exceptions->uncaught),
                                 std::memory_order_relaxed); // published by arm()
    epoch_ = self.wait.arm(how == cancellable::yes);
    if (how == cancellable::yes && self.attention.load(std::memory_order_seq_cst) != 0) [[unlikely]] // I4
        leave_if_cancelled();
}

void parking::leave_if_cancelled() {
    if (nearest_cancelled(*fiber_) == nullptr) return;
    fiber_->wait.withdraw(); // or a canceller was first: the same to us
    throw_cancelled(*fiber_);
}

wake_reason parking::suspend() noexcept {
    fiber& self = *fiber_;
    if (!self.wait.is_delivered()) { // A4
        worker& here = *this_worker();
        self.waiting_since.store(here.coarse_now.load(std::memory_order_relaxed), // for reports
                                 std::memory_order_relaxed);                      //  "
        self.state.store(task_state::waiting, std::memory_order_release); // pairs with reports
        here.leave_current(after_switch::park);
    }
    return self.wait.reason();
}

wake_reason parking::suspend_before_use_of(void const* object) noexcept {
    fiber& self = *fiber_;
    auto const page_of = [](void const* address) { return reinterpret_cast<std::uintptr_t>(address) / fiber::page; };
    std::uintptr_t const distance = page_of(object) - page_of(__builtin_frame_address(0));
    self.pages_up = distance < 32 ? std::uint8_t(distance) : 0; // else it is not on the stack
    wake_reason const why = suspend();
    self.pages_up = 0;
    return why;
}

wake_reason parking::suspend_until(time_point deadline) {
    if (deadline == time_point::max()) return suspend();
    fiber& self = *fiber_;
    worker& here = *this_worker();
    try {
        here.timers.insert(self, deadline);
    } catch (...) {
        if (!self.wait.withdraw()) suspend();
        throw;
    }
    worker& armed_at = here; // stays where it is; workers live as long as the run
    wake_reason const why = suspend();
    if (why != wake_reason::timer) armed_at.timers.remove(self);
    return why;
}

bool wake(fiber& waiter, std::uint64_t epoch, wake_reason reason) noexcept {
    switch (waiter.wait.claim(epoch, reason)) {
    case wait_word<>::claim_result::lost:
        return false;
    case wait_word<>::claim_result::schedule:
        schedule(waiter);
        break;
    case wait_word<>::claim_result::won:
        break;
    }
    return true;
}

bool wake(wait_ref reference, wake_reason reason) noexcept {
    return wake(*fiber_at(reference.index), reference.epoch, reason);
}

void schedule(fiber& runnable) noexcept {
    runnable.runtime->schedule(runnable);
}

poller* poller_for_registration() noexcept {
    worker* const here = this_worker();
    if (here == nullptr) return nullptr;
    fiber const* const self = here->current.load(std::memory_order_relaxed); // our own
    if (self != nullptr && self->pinned_to.load(std::memory_order_relaxed) < fiber::first_worker) // our own
        return here->poll.get(); // nobody else could run it
    return here->run_of.with_time_left(*here).poll.get();
}

service_list& current_services(char const* call) {
    worker* const here = this_worker();
    if (here == nullptr) {
        refuse_in_forked_child(call);
        throw no_event_loop_error(std::string(call) + " was called outside of run()");
    }
    return here->run_of.services;
}

void yield_current(char const* call) noexcept {
    worker& here = *this_worker();
    fiber& self = *here.current.load(std::memory_order_relaxed); // our own
    check_may_suspend(self, call);
    here.service_timers();
    self.state.store(task_state::ready, std::memory_order_release); // pairs with reports
    here.leave_current(after_switch::yield);
}

} // namespace weft::detail

namespace weft::lowlevel {

void checkpoint() {
    detail::pass_checkpoint("lowlevel::checkpoint");
}

void checkpoint_if_cancelled() {
    detail::check_cancellation("lowlevel::checkpoint_if_cancelled");
}

void cancel_shielded_checkpoint() {
    // Others notice what passes, and the budget begins anew: no later call might arm them.
    detail::scope_access::arm_deadlines(detail::require_fiber("lowlevel::cancel_shielded_checkpoint"));
    detail::yield_current("lowlevel::cancel_shielded_checkpoint");
}

} // namespace weft::lowlevel
