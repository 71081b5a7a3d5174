#include <weft/runtime/cancel_scope.hpp>

#include "abort.hpp"
#include "runtime.hpp"
#include "scope_access.hpp"
#include "task.hpp"

#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/swallowed.hpp>

#include <algorithm>
#include <new>
#include <optional>
#include <stdexcept>

#include <sched.h>

namespace weft {

using detail::scope_access;

cancel_scope::~cancel_scope() {
    if (owner_.load(std::memory_order_relaxed) != nullptr) // the owner itself destroys it
        detail::die("a cancel_scope was destroyed while its body runs");
}

// In the order of scope_opener.
static constexpr char const* names_of_openers[] = {
    "cancel_scope::run", "move_on_at", "move_on_after",   "fail_at",
    "fail_after",        "shielded",   "task_group::run", "with_task_group"};

void cancel_scope::enter() {
    detail::fiber* const caller = detail::current_fiber();
    if (caller == nullptr) [[unlikely]] // only then the name is looked for
        detail::require_fiber(names_of_openers[flags_.load(std::memory_order_relaxed) >> opener_place]); // a constant
    detail::fiber& self = *caller;
    if ((flags_.load(std::memory_order_relaxed) & entered) != 0) // only the task that enters sets it
        throw std::logic_error("a cancel_scope was entered twice, now by " +
                               detail::describe_caller() + "; it serves for one run()");
    unwinding_ = std::uint16_t(detail::this_worker()->exceptions->uncaught);
    outer_ = self.innermost.load(std::memory_order_relaxed); // our own
    owner_.store(&self, std::memory_order_release);          // pairs with owner(): its run can be read
    self.innermost.store(this, std::memory_order_release);   // pairs with those who walk
    self.has_unarmed_scopes = true;
    // Pairs with mark(): either we see its `called`, or it sees `entered` and with it the owner.
    std::uint32_t const before = flags_.fetch_or(entered, std::memory_order_seq_cst); // mark()
    if (deadline() != time_point::max()) self.runtime->watch(); // one that is set meanwhile is seen here or there
    if ((before & called) != 0)
        self.attention.fetch_or(detail::attention::cancel, std::memory_order_relaxed); // ours to read
    else if ((before & in_future) == 0 && deadline() != time_point::max() &&
             deadline() <= self.runtime->now() && scope_access::mark(*this, true, {}))
        self.attention.fetch_or(detail::attention::cancel, std::memory_order_relaxed); // ours to read
}

// Pops the scope. True: it was cancelled, and no cancellation from outside is visible (C10).
static bool pop(detail::fiber& self, cancel_scope& scope, bool cancelled_left) noexcept {
    bool swallow = false;
    auto const decide = [&](bool* open_end) {
        scope_access::flag const flags = scope_access::flags(scope);
        if (!cancelled_left || (flags & scope_access::called) == 0) return;
        unsigned const unwinding = detail::this_worker()->exceptions->uncaught;
        swallow = (flags & scope_access::shielding) != 0 ||
                  detail::visible_cancellation(scope_access::outer(scope), self, unwinding,
                                               open_end) == nullptr;
    };
    std::unique_lock<std::mutex> delivery;
    self.scopes.lock();
    bool open_end = false;
    decide(&open_end);
    if (open_end) { // rare: inside a start() that is under way
        self.scopes.unlock();
        delivery = std::unique_lock(detail::delivery_mutex());
        self.scopes.lock();
        swallow = false;
        decide(nullptr);
    }
    scope_access::unlink(scope, self, swallow);
    // Nobody arms it from here on: the owner is gone. A deadline may have been set by others until now.
    bool const timed = scope_access::is_timed(scope);
    self.scopes.unlock();
    if (delivery.owns_lock()) delivery.unlock(); // a timer under way may need it
    if (timed) scope_access::disarm(scope, self);
    detail::note_scope_left(self, scope, cancelled_left, swallow);
    return swallow;
}

void cancel_scope::leave() noexcept {
    detail::fiber& self = *owner_.load(std::memory_order_relaxed); // our own
    pop(self, *this, false);
}

bool cancel_scope::leave_cancelled() noexcept {
    detail::fiber& self = *owner_.load(std::memory_order_relaxed); // our own
    return pop(self, *this, true);
}

bool cancel_scope::leave_failed(exception_group const& group) {
    bool any_cancelled = false;
    std::exception_ptr rest;
    try {
        rest = group.without([&](std::exception_ptr const& leaf) {
            try {
                std::rethrow_exception(leaf);
            } catch (cancelled const&) {
                any_cancelled = true;
                return true;
            } catch (...) { // another leaf: looked at, not swallowed
                return false;
            }
        });
    } catch (...) { // no memory
        leave();
        throw;
    }
    if (!any_cancelled) {
        leave();
        return false;
    }
    if (!leave_cancelled()) return false;
    if (rest != nullptr) std::rethrow_exception(rest);
    return true;
}

void cancel_scope::cancel(std::string reason) {
    // Who comes second also returns only when it has arrived everywhere (C31): it lends a hand.
    // Where the deadline has passed, and cancel_called() may have said so, that is the cause (C23, C25).
    bool const is_late = scope_access::owner(*this) != nullptr && scope_access::is_too_late(*this);
    bool const first = scope_access::mark(*this, is_late, std::move(reason));
    if (!first && scope_access::is_delivered(*this)) return;
    if (detail::fiber* const owner = scope_access::owner(*this))
        detail::deliver_cancellation(*owner, *this, first);
}

void detail::cancel_because(cancel_scope& scope, char const* reason) noexcept {
    std::string text;
    try {
        text = reason;
    } catch (std::bad_alloc const&) { // cancelled all the same
    }
    scope.cancel(std::move(text));
}

bool cancel_scope::cancel_called() const noexcept {
    return (scope_access::flags(*this) & called) != 0 || scope_access::is_too_late(*this); // C23
}

bool cancel_scope::cancelled_caught() const noexcept {
    return (scope_access::flags(*this) & caught) != 0;
}

std::string cancel_scope::cancel_reason() const {
    if ((scope_access::flags(*this) & called) == 0 || cause_ == nullptr) return {};
    return cause_->reason;
}

time_point cancel_scope::deadline() const noexcept {
    return time_point(duration(deadline_.load(std::memory_order_relaxed))); // a value by itself
}

// Where there is no memory for a timer, the deadline that was there stays, and so does its timer.
void cancel_scope::set_deadline(time_point when) {
    detail::fiber* owner = scope_access::owner(*this);
    std::optional<time_point> replaced; // before we had the lock
    if (owner == nullptr) {
        replaced = deadline();
        deadline_.store(when.time_since_epoch().count(), std::memory_order_relaxed); // published by flags_
        // Pairs with enter(): either it sees the deadline, or we see that it was there, and the owner.
        if ((flags_.fetch_and(~in_future, std::memory_order_seq_cst) & entered) == 0) return; // enter()
        owner = scope_access::owner(*this);
        if (owner == nullptr) return; // left
    }
    if (when != time_point::max()) scope_access::have_watched(*this, *owner);
    bool reached = false;
    {
        std::lock_guard const guard(owner->scopes);
        time_point const before = replaced.value_or(deadline());
        deadline_.store(when.time_since_epoch().count(), std::memory_order_relaxed); // by itself
        std::uint32_t const flags = scope_access::flags(*this);
        if (scope_access::owner(*this) != owner) return;
        // One that had passed stays passed, whoever has noticed: cancel_called() may have said so (C5, C23).
        reached = std::min(before, when) <= owner->runtime->now();
        if ((flags & called) != 0 && !reached) return;
        try {
            scope_access::set_timer(*this, *owner, reached ? time_point::max() : when);
        } catch (std::bad_alloc const&) {
            deadline_.store(before.time_since_epoch().count(), std::memory_order_relaxed); // by itself
            throw;
        }
    }
    if (!reached) return;
    bool const first = scope_access::mark(*this, true, {});
    if (!first && scope_access::is_delivered(*this)) return;
    detail::deliver_cancellation(*owner, *this, first);
}

bool cancel_scope::shield() const noexcept {
    return (scope_access::flags(*this) & shielding) != 0;
}

void cancel_scope::set_shield(bool wanted) {
    if (wanted) {
        flags_.fetch_or(shielding | once_shielded, std::memory_order_seq_cst); // flags()
        return;
    }
    flags_.fetch_and(~shielding, std::memory_order_seq_cst); // pairs with flags()
    // Looked for only now: who enters meanwhile either sees no shield, or is seen (enter()).
    if (detail::fiber* const owner = scope_access::owner(*this))
        detail::deliver_cancellation(*owner); // what was kept out comes in (C17)
}

time_point current_effective_deadline() {
    detail::fiber* const self = detail::current_fiber();
    return self == nullptr ? time_point::max() : scope_access::effective_deadline(*self);
}

namespace detail {

cancel_scope timed_scope::after(duration delay, bool shield, scope_opener by) noexcept {
    return cancel_scope(time_after(clock::now(), delay),
                        (shield ? cancel_scope::shielding | cancel_scope::once_shielded : 0) |
                            (delay > duration::zero() ? cancel_scope::in_future : 0),
                        by);
}

bool timed_scope::timed_out(cancel_scope const& scope) noexcept {
    return scope_access::timed_out(scope);
}

bool scope_access::is_too_late(cancel_scope const& of) noexcept {
    if (of.deadline() == time_point::max()) return false;
    bool const left = (flags(of) & cancel_scope::entered) != 0 && owner(of) == nullptr;
    return !left && of.deadline() <= now(of);
}

// By the clock of the run that it is in, whoever asks.
time_point scope_access::now(cancel_scope const& of) noexcept {
    if (fiber* const owner = scope_access::owner(of)) {
        std::lock_guard const guard(owner->scopes); // while it is entered the run lives
        if (scope_access::owner(of) == owner) return owner->runtime->now();
    }
    return clock::now();
}

bool scope_access::is_first_to_mark(cancel_scope& of) noexcept {
    flag const before = of.flags_.fetch_or(cancel_scope::calling, std::memory_order_seq_cst); // once
    if ((before & cancel_scope::calling) == 0) return true;
    // Somebody else decided the cause; the caller may rely on the scope being cancelled.
    while ((flags(of) & called) == 0)
        pause_cpu();
    return false;
}

void scope_access::mark_along(cancel_scope& of, std::shared_ptr<cancel_cause const> cause) noexcept {
    if (!is_first_to_mark(of)) return;
    of.cause_ = std::move(cause);
    of.flags_.fetch_or(called, std::memory_order_seq_cst); // pairs with flags()
}

bool scope_access::mark(cancel_scope& of, bool by_deadline, std::string reason) noexcept {
    if (!is_first_to_mark(of)) return false;
    try {
        // Never destroyed: destructors of static objects may call run().
        static auto const& deadline_passed = *new std::shared_ptr<cancel_cause const>(
            new cancel_cause{{}, "cancelled: the deadline has passed"});
        if (by_deadline) {
            of.cause_ = deadline_passed;
        } else {
            std::string text = "cancelled";
            if (fiber const* const by = current_fiber()) text += " by task '" + task_name(*by) + "'";
            if (!reason.empty()) text += ": " + reason;
            of.cause_ = std::make_shared<cancel_cause const>(
                cancel_cause{std::move(reason), std::move(text)});
        }
    } catch (std::bad_alloc const&) { // cancelled all the same, without a reason
    }
    of.flags_.fetch_or(cancel_scope::called | (by_deadline ? cancel_scope::by_deadline : 0),
                       std::memory_order_seq_cst); // pairs with enter() and flags()
    return true;
}

void scope_access::unlink(cancel_scope& scope, fiber& self, bool swallowed) noexcept {
    if (self.innermost.load(std::memory_order_relaxed) != &scope) // our own
        die("cancel scopes were left out of order; coroutines inside a fiber must not keep one open");
    self.innermost.store(scope.outer_, std::memory_order_release); // pairs with those who walk
    scope.owner_.store(nullptr, std::memory_order_release);        // pairs with owner()
    flag const flags = scope.flags_.load(std::memory_order_relaxed); // under the lock
    if (swallowed) scope.flags_.fetch_or(cancel_scope::caught, std::memory_order_release); // flags()
    // What the shield kept out of our sight may be visible from here on (C32).
    if ((flags & cancel_scope::once_shielded) != 0)
        self.attention.fetch_or(attention::cancel, std::memory_order_relaxed); // ours to read
}

timer_heap& scope_access::timers_of(cancel_scope& of, fiber& owner) noexcept {
    return owner.runtime->workers[of.timer_heap_]->timers;
}

// The scope may be left meanwhile, and its run may end: not while we visit it.
void scope_access::have_watched(cancel_scope& of, fiber& owner) noexcept {
    if (&owner == current_fiber()) return owner.runtime->watch();
    std::optional<runtime::visit> visiting;
    runtime* run = nullptr;
    {
        std::lock_guard const guard(owner.scopes); // while it is entered the run lives
        if (scope_access::owner(of) != &owner) return;
        run = owner.runtime;
        visiting.emplace(*run);
    }
    run->watch();
}

void scope_access::disarm(cancel_scope& scope, fiber& self) noexcept {
    timers_of(scope, self).remove(scope);
    while (scope.firing_.load(std::memory_order_acquire) != 0) // pairs with deadline_reached()
        pause_cpu();
}

void scope_access::arm(cancel_scope& scope, fiber& owner, time_point when) {
    runtime& run = *owner.runtime;
    worker* const here = this_worker();
    worker& heap_of = here != nullptr && &here->run_of == &run ? *here : *run.workers.front();
    bool const earliest = heap_of.timers.insert(scope, when);
    scope.flags_.fetch_or(cancel_scope::timed, std::memory_order_relaxed); // under the owner's lock
    if (earliest && &heap_of != here) run.wake_worker(heap_of.index);
}

// Moved, a timer stays in its heap, whoever moves it: this needs no memory, so that no deadline is lost, and
// the worker there has to hear only of an earlier time. Rejected: into the mover's heap, which needs some.
void scope_access::set_timer(cancel_scope& scope, fiber& owner, time_point when) {
    if (when == time_point::max()) {
        if (is_timed(scope)) timers_of(scope, owner).remove(scope);
        return;
    }
    worker& keeper = *owner.runtime->workers[scope.timer_heap_];
    std::optional<bool> const earlier = is_timed(scope) ? keeper.timers.move(scope, when) : std::nullopt;
    if (!earlier) return arm(scope, owner, when);
    if (*earlier && &keeper != this_worker()) owner.runtime->wake_worker(keeper.index);
}

void scope_access::arm_all(fiber& self) {
    std::lock_guard const guard(self.scopes);
    auto const for_each_unarmed = [&self](auto&& visit) {
        cancel_scope* scope = self.innermost.load(std::memory_order_relaxed); // our own
        for (; scope != self.base; scope = scope->outer_) {
            flag const now = scope->flags_.load(std::memory_order_relaxed); // under the lock
            if ((now & cancel_scope::armed) != 0) break; // and all around it
            visit(*scope, now);
        }
    };
    for_each_unarmed([&self](cancel_scope& scope, flag now) {
        time_point const when = scope.deadline();
        if (when == time_point::max() || (now & (cancel_scope::timed | cancel_scope::called)) != 0) return;
        if (when > self.runtime->now()) {
            arm(scope, self, when);
        } else { // it has no children yet who would have to be told: open()
            mark(scope, true, {}); // or somebody else was first, and it is marked all the same
            self.attention.fetch_or(attention::cancel, std::memory_order_relaxed); // ours to read
        }
    });
    // Only now: where memory runs out on the way, the next call goes on with the scopes that are left.
    for_each_unarmed([](cancel_scope& scope, flag) {
        scope.flags_.fetch_or(cancel_scope::armed, std::memory_order_relaxed); // under the lock
    });
    self.has_unarmed_scopes = false;
}

void scope_access::deadline_reached(cancel_scope& scope, time_point now) noexcept {
    fiber* const owner = scope_access::owner(scope);
    bool marked = false;
    if (owner != nullptr) {
        owner->scopes.lock();
        if (scope_access::owner(scope) == owner && scope.deadline() <= now) // moved meanwhile: stale
            marked = mark(scope, true, {});
        owner->scopes.unlock();
        if (marked) deliver_cancellation(*owner, scope, true);
    }
    scope.firing_.fetch_sub(1, std::memory_order_release); // pairs with disarm(): the last access
}

time_point scope_access::effective_deadline(fiber& self) noexcept {
    std::lock_guard const delivery(delivery_mutex()); // the walk may pass a start() under way
    std::lock_guard const guard(self.scopes);
    time_point nearest = time_point::max();
    cancel_scope* const innermost = self.innermost.load(std::memory_order_relaxed); // our own
    for (cancel_scope* scope = innermost; scope != nullptr; scope = scope->outer_) {
        flag const now = flags(*scope);
        if ((now & called) != 0) return time_point::min();
        if (scope->deadline() < nearest) nearest = scope->deadline();
        if ((now & shielding) != 0) break;
    }
    if (nearest != time_point::max() && nearest <= self.runtime->now()) return time_point::min(); // C23
    return nearest;
}

// Never destroyed, as in mark().
static std::shared_ptr<std::string const> text_of(std::shared_ptr<cancel_cause const> const& cause) {
    static auto const& unknown = *new std::shared_ptr<std::string const>(new std::string("cancelled"));
    return cause == nullptr ? unknown : std::shared_ptr<std::string const>(cause, &cause->text);
}

// Who was cut once is cut again at each call, also where the walk was made for another reason and found what a
// canceller has marked but not yet told of (delivery.cpp, between K1 and K2).
cancelled scope_access::make_cancelled(fiber& self) {
    self.attention.fetch_or(attention::cancel, std::memory_order_relaxed); // ours to read
    std::shared_ptr<cancel_cause const> cause;
    cancel_scope const* const scope = nearest_cancelled(self, &cause);
    return cancelled(note_cancellation_thrown(self, scope, text_of(cause)));
}

std::exception_ptr scope_access::make_pending(fiber& of) {
    std::shared_ptr<cancel_cause const> cause;
    if (!has_pending_cancellation(of, &cause)) return nullptr;
    return std::make_exception_ptr(cancelled(text_of(cause)));
}

bool is_cancelled(fiber& self) noexcept {
    return nearest_cancelled(self) != nullptr;
}

// The timer may be in the heap of any worker, and that one may compute. What another thread has just taken out
// is marked by it, which may have lost its core in between.
void notice_deadlines(fiber& self) {
    scope_access::arm_deadlines(self);
    for (; !is_cancelled(self) && has_pending_cancellation(self); ::sched_yield())
        for (auto const& each : self.runtime->workers)
            each->timers.expire(self.runtime->now());
}

std::exception_ptr pending_cancellation(fiber& waiter) {
    return scope_access::make_pending(waiter);
}

void throw_timeout(duration limit) {
    auto const ms = std::chrono::duration_cast<std::chrono::microseconds>(limit).count();
    throw timeout_error("the body did not finish within " + std::to_string(double(ms) / 1000) + " ms");
}
void throw_timeout(time_point) {
    throw timeout_error("the body did not finish before its deadline");
}
void throw_cut_short(char const* what) {
    throw task_cancelled(what);
}

} // namespace detail
} // namespace weft
