#include <weft/runtime/detail/group_state.hpp>

#include "abort.hpp"
#include "runtime.hpp"
#include "scope_access.hpp"
#include "task.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/swallowed.hpp>
#include <weft/runtime/task_group.hpp>

#include <new>
#include <stdexcept>

namespace weft::detail {

namespace {
[[noreturn]] void refuse(char const* what) {
    throw std::logic_error(std::string("this task group is not active; ") + what + " by " +
                           describe_caller());
}

// For people: what failed is told and what is cancelled is cancelled without it, too.
template <class Make> std::string text_if_there_is_memory(Make&& make) noexcept {
    try {
        return make();
    } catch (std::bad_alloc const&) {
        return {};
    }
}
} // namespace

void group_state::check_new() const {
    if (was_opened())
        throw std::logic_error("a task group cannot be entered more than once, as " +
                               describe_caller() + " tried");
}

void group_state::open_as_root(runtime& run) noexcept {
    run_ = &run;
    open_ = true;
}

void group_state::open(fiber& host) {
    scope_access::arm_deadlines(host); // children are bound by them even if the host never waits
    run_ = host.runtime;
    host_ = &host;
    host_id_ = host.id;
    {
        std::lock_guard const guard(lock_);
        open_ = true;
        // What has come by the host before concerns the children, too; they look for themselves.
        hint_ = (host.attention.load(std::memory_order_relaxed) & attention::cancel) != 0; // below
    }
    std::lock_guard const guard(host.scopes);
    next_open_ = host.open_groups;
    host.open_groups = this;
    if ((host.attention.load(std::memory_order_relaxed) & attention::cancel) != 0) // under its lock
        hint_ = true; // nobody else knows the group yet
}

void group_state::link(fiber& child) noexcept {
    if (children_ == nullptr) {
        children_ = child.previous_sibling = child.next_sibling = &child;
        return;
    }
    child.next_sibling = children_;
    child.previous_sibling = children_->previous_sibling;
    children_->previous_sibling->next_sibling = &child;
    children_->previous_sibling = &child;
}

void group_state::unlink(fiber& child) noexcept {
    if (child.next_sibling == &child) {
        children_ = nullptr;
        return;
    }
    child.previous_sibling->next_sibling = child.next_sibling;
    child.next_sibling->previous_sibling = child.previous_sibling;
    if (children_ == &child) children_ = child.next_sibling;
}

void group_state::check_open() {
    std::lock_guard const guard(lock_);
    if (!open_) refuse("no new tasks can be started in it");
}

void group_state::adopt(fiber& child) {
    std::lock_guard const guard(lock_);
    admit(child);
}

void group_state::adopt_from_outside(fiber& child) {
    std::lock_guard const guard(lock_);
    if (!open_) refuse("no new tasks can be started in it");
    child.id = run_->new_task_id();
    if (child.stack_class == stack_classes::count) child.stack_class = std::uint8_t(run_->stack_class);
    admit(child);
}

void group_state::admit(fiber& child) {
    if (!open_) refuse("no new tasks can be started in it");
    // Only now: who sees an unfinished task looks at the scopes around it, which may be gone when the
    // group has closed (delivery I5).
    child.state.store(task_state::ready, std::memory_order_release); // pairs with reports: all is there
    ++pending_;
    link(child);
    if (hint_) child.attention.store(attention::cancel, std::memory_order_relaxed); // not yet running
}

void group_state::hold() {
    std::lock_guard const guard(lock_);
    if (!open_) refuse("no new tasks can be started in it");
    ++pending_;
}

void group_state::release_hold() noexcept {
    std::lock_guard const guard(lock_);
    settle(1);
}

// The host wakes once nothing is pending. It takes the lock again before it goes on, so that the unlock
// after this is the last access to the group (G30).
void group_state::settle(std::size_t fewer) noexcept {
    pending_ -= fewer;
    if (pending_ > 0 || host_waiting_ == nullptr) return;
    wait_node* const node = std::exchange(host_waiting_, nullptr);
    wake(*node->waiter, node->epoch, wake_reason::event);
}

// Without memory the first is kept and the others are lost: that something failed is told, in a group, or by
// bad_alloc where there is none for that either.
void group_state::record(std::exception_ptr error, std::string origin) noexcept {
    std::lock_guard const guard(lock_);
    try {
        if (errors_.size() == errors_.capacity()) errors_.reserve(2 * errors_.size() + 4);
        origins_.reserve(errors_.capacity()); // so that both grow, or none
        errors_.push_back(std::move(error));
        origins_.push_back(std::move(origin));
    } catch (std::bad_alloc const&) {
        if (error_without_memory_ == nullptr) error_without_memory_ = std::move(error);
    }
}

void group_state::host_failed(std::exception_ptr error) noexcept {
    record(std::move(error), text_if_there_is_memory([] { return "the body of the group"; }));
    cancel_because(scope_, "the body of the task group failed");
}

void group_state::child_failed(fiber& child, std::exception_ptr error) noexcept {
    if (host_ == nullptr) return; // of the run: its tasks tell of their failures themselves
    record(std::move(error), text_if_there_is_memory([&] { return describe_origin(child); }));
    scope_.cancel(text_if_there_is_memory([&] { return "task '" + task_name(child) + "' failed"; }));
}

// It, or what is around it. Its host, whom it waits for, stands in those scopes.
static bool is_cancelled(cancel_scope const& scope, fiber const* host) noexcept {
    if ((scope_access::flags(scope) & scope_access::called) != 0) return true; // mostly; no lock
    std::lock_guard const delivery(delivery_mutex());
    return visible_cancellation(&scope, *host, 0, nullptr) != nullptr;
}

void group_state::children_ended(fiber* const* ended, unsigned count,
                                 bool cancellation_escaped) noexcept {
    if (cancellation_escaped && host_ != nullptr && !is_cancelled(scope_, host_))
        cancel_because(scope_, "a task let a cancellation escape"); // G13
    std::lock_guard const guard(lock_);
    if (cancellation_escaped) cancellation_escaped_ = true;
    for (unsigned number = 0; number < count; ++number)
        unlink(*ended[number]);
    settle(count);
}

bool group_state::wait_until_settled(char const* call, cancellable how) {
    for (;;) {
        parking wait(call, how);
        wait_node node(wait);
        {
            std::lock_guard const guard(lock_);
            if (pending_ == 0) {
                if (wait.withdraw()) return true;
                return wait.reason() != wake_reason::cancelled;
            }
            host_waiting_ = &node;
        }
        wake_reason const why = wait.suspend();
        std::lock_guard const guard(lock_); // also: whoever woke us has left
        if (host_waiting_ == &node) host_waiting_ = nullptr;
        if (why == wake_reason::cancelled) return false;
        if (pending_ == 0) return true;
    }
}

bool group_state::try_close(fiber& host) {
    {
        std::lock_guard const guard(lock_);
        if (pending_ != 0) return false;
        open_ = false;
    }
    bool queued = false;
    {
        std::lock_guard const guard(host.scopes);
        group_state** link = &host.open_groups;
        while (*link != this)
            link = &(*link)->next_open_;
        *link = next_open_;
        queued = queued_.load(std::memory_order_acquire); // pairs with the end of its walk
    }
    // A delivery is about to walk the children that are gone: it must have let go of us first.
    if (queued) std::lock_guard const delivered(delivery_mutex());
    return true;
}

std::exception_ptr group_state::close(fiber& host) {
    bool waited = false;
    do {
        {
            std::lock_guard const guard(lock_);
            waited = waited || pending_ != 0;
        }
        if (waited) wait_until_settled("task_group::run", cancellable::no);
    } while (!try_close(host));
    if (!waited) yield_current("task_group::run"); // leaving always lets others run (G6)
    if (error_without_memory_ != nullptr) errors_.push_back(std::move(error_without_memory_));
    if (errors_.empty()) return nullptr;
    return std::make_exception_ptr(exception_group("unhandled errors in a task group",
                                                   std::move(errors_), std::move(origins_)));
}

start_record::start_record() : group(*this) {}

void start_record::check_not_started() const {
    if (called_.load(std::memory_order_relaxed)) // two callers at once race to be told
        throw std::logic_error("started() was called twice on the same task_status, now by " +
                               describe_caller());
}

void start_record::started() {
    refuse_in_forked_child("task_status.started"); // the lock of delivery may be nobody's
    if (called_.exchange(true, std::memory_order_relaxed)) check_not_started(); // decides only that
    phase expected = phase::pending;
    if (!phase_.compare_exchange_strong(expected, phase::moving, std::memory_order_acq_rel)) // start()
        return; // the caller was cancelled: the child stays where it is (S10). Or it has ended
    auto const keep = shared_from_this();
    std::lock_guard const delivery(delivery_mutex());
    // The caller may have been cancelled and not have run since. It stands in its scopes as long as we are moving.
    cancel_scope const* const cancelled_by = visible_cancellation(this, *child_, 0, nullptr);
    if (cancelled_by == nullptr) return move_child();
    // For good, also if a shield goes up that keeps it from the caller: the child has been told to stay (S10).
    scope_access::mark_along(*this, scope_access::cause(*cancelled_by));
    deliver_locked(*child_);
    phase_.store(phase::abandoned, std::memory_order_release); // pairs with start() and child_ends()
}

void start_record::child_ends() noexcept {
    phase seen = phase::pending;
    if (phase_.compare_exchange_strong(seen, phase::ended, std::memory_order_acq_rel)) return; // started()
    while (seen == phase::moving) { // another task says started() for the child at this moment
        pause_cpu();
        seen = phase_.load(std::memory_order_acquire); // pairs with move_child()
    }
}

// From here on the destination's cancellation counts and the caller's does not (S4). Under the lock of delivery.
void start_record::move_child() {
    fiber& child = *child_;
    {
        std::lock_guard const guard(destination_->lock_);
        child.scopes.lock();
        scope_access::place(*this, &destination_->scope_, 0, 0);
        scope_access::clear_flag(*this, scope_access::provisional);
        child.scopes.unlock();
    }
    {
        std::lock_guard const guard(group.lock_);
        group.unlink(child);
    }
    {
        std::lock_guard const guard(destination_->lock_);
        destination_->link(child); // what hold() counted is now the child
        std::lock_guard const own(child.scopes);
        child.group = destination_;
        child.parent_id = destination_->host_id_;
        if (destination_->hint_)
            child.attention.fetch_or(attention::cancel, std::memory_order_seq_cst); // a canceller came
    }
    deliver_locked(child); // what was cancelled there before it came
    phase_.store(phase::moved, std::memory_order_release); // pairs with start() and child_ends()
    std::lock_guard const guard(group.lock_);
    group.settle(1); // the caller goes on
}

// False: the caller was cancelled, before it waited or while it did.
static bool wait_for_child(group_state& group, fiber& caller) {
    try {
        return group.wait_until_settled("task_group::start", cancellable::yes);
    } catch (cancelled const&) { // told later, when the child has ended
        note_cancellation_handled(caller);
    } catch (std::bad_alloc const&) { // cancelled, and no memory to say so; the child is at work
    }
    return false;
}

void start_record::start(new_task& task, group_state& destination) {
    fiber& caller = require_fiber("task_group::start");
    destination_ = &destination;
    destination.hold(); // from here on it stays open
    bool moved = false;
    struct release {
        group_state& destination;
        bool& moved;
        ~release() {
            if (!moved) destination.release_hold();
        }
    } const guard{destination, moved};
    // The child begins under the caller and cannot go from one run's workers to another's.
    if (&destination.run_of() != caller.runtime)
        throw std::logic_error("task_group::start() by " + describe_caller() +
                               " on a task group of another run: start_soon() can do that");

    scope_access::place(*this, caller.innermost.load(std::memory_order_relaxed), // our own
                        this_worker()->exceptions->uncaught,
                        scope_access::of_start | scope_access::provisional);
    group.open(caller);
    auto const keep = shared_from_this();
    try {
        child_ = &task.block(); // before it runs: it may say started() before launch() returns
        add_owner(*child_); // it may end before it can be named
        task.launch(group, this);
    } catch (...) {
        group.try_close(caller);
        throw;
    }
    task_reference const child(*child_);
    bool const settled = wait_for_child(group, caller);
    if (!settled) {
        phase expected = phase::pending;
        if (phase_.compare_exchange_strong(expected, phase::abandoned,
                                           std::memory_order_acq_rel)) { // pairs with started()
            std::shared_ptr<cancel_cause const> cause;
            nearest_cancelled(caller, &cause);
            scope_access::mark_along(*this, std::move(cause)); // a shield may go up, and keep it from the child
            deliver_cancellation(*child_);
        }
        group.wait_until_settled("task_group::start", cancellable::no); // S9
    }
    while (!group.try_close(caller)) // nobody else starts tasks here
        group.wait_until_settled("task_group::start", cancellable::no);
    moved = phase_.load(std::memory_order_acquire) == phase::moved; // pairs with started()
    if (moved) return;
    if (auto const error = group.first_error()) std::rethrow_exception(error); // S5
    // Also where the child was told first, and has ended of it in its own way.
    if (!settled || nearest_cancelled(caller) != nullptr) throw_cancelled(caller);
    if (phase_.load(std::memory_order_acquire) == phase::abandoned) // by started(), with which it pairs
        throw_cut_short("task_group::start() was cancelled");
    if (group.cancellation_escaped()) // one of its own, which is nobody's here
        throw_cut_short(("task '" + task_name(*child_) +
                         "' let a cancellation escape before task_status::started()")
                            .c_str());
    throw std::logic_error("task '" + task_name(*child_) +
                           "' ended without calling task_status::started()");
}

} // namespace weft::detail

namespace weft {

void task_group::open() {
    state_.open(detail::require_fiber("task_group::run"));
}

void task_group::finish(bool cut_short) {
    detail::fiber& host = detail::require_fiber("task_group::run");
    if (cut_short) detail::note_cancellation_handled(host);
    if (std::exception_ptr const failed = state_.close(host)) std::rethrow_exception(failed);
    if (cut_short || state_.cancellation_escaped()) detail::throw_cancelled(host);
}

} // namespace weft
