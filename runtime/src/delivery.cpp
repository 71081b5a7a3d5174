#include "scope_access.hpp"

#include "runtime.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/group_state.hpp>

#include <mutex>

// How a cancellation reaches everything in a scope.
//
//   canceller                                        fiber
//   K1  scope.flags |= called         (seq_cst)      F1  wait.arm()                      (seq_cst)
//   K2  under the fiber's lock: attention |= cancel  F2  attention & cancel? walk outwards
//       (seq_cst); look at wait; armed, and the          under the own lock; cancelled: throw
//       walk from there finds a cancellation: claim
//   K3  the same for each child of each open group   F3  nothing found: clear the hint under the lock
//       of that fiber which is cancelled itself
//
// I1  K2 and F1-F2 are read-modify-writes followed by loads in the single total order: either the fiber
//     sees the hint, or the canceller sees the armed wait.
// I2  The hint is cleared (F3) only under the lock under which it is set (K2), after a walk that saw no
//     K1; a canceller whose K1 the walk missed comes to K2 later.
// I3  What a shield kept out is looked for again when a scope that has ever been shielded is left.
// I4  Decisions are always made by walking from the fiber's own scopes: a stale or recycled fiber that
//     is looked at by mistake decides rightly for itself.
// I5  A fiber marks itself finished under its lock, before its group lets it go: while a lock of an
//     unfinished fiber is held, all scopes around it exist.
// I6  Groups that wait to be walked are marked `queued`; they do not close before the mark is gone.
//
// Order of locks: delivery, group, fiber. Rejected: pushing an "effectively cancelled" flag down the tree
// (shields that move make it wrong), and counting requests per task (AnyIO got that wrong five times).

namespace weft::detail {

namespace {

constexpr unsigned children_at_once = 64; // a group's lock is not held for longer than this many

std::mutex delivery_lock;

struct delivery {
    group_state* queued = nullptr;

    void visit(fiber& of) noexcept;
    void enqueue_groups(fiber& host) noexcept;
    void walk(group_state&) noexcept;
    void walk_all() noexcept;
};

// K2. Under the fiber's lock. False: the answer needs the delivery lock.
bool nudge(fiber& of, bool locked) noexcept {
    of.attention.fetch_or(attention::cancel, std::memory_order_seq_cst); // I1
    auto const seen = of.wait.load();                                     // I1
    if (!wait_word<>::is_open(seen) || (seen & wait_word<>::cancellable) == 0) return true;
    bool open_end = false;
    unsigned const unwinding = of.waiting_unwinding.load(std::memory_order_relaxed); // by epoch
    bool const cancelled =
        visible_cancellation(of.innermost.load(std::memory_order_acquire), of, unwinding, // enter()
                             locked ? nullptr : &open_end) != nullptr;
    if (open_end) return false;
    if (cancelled &&
        of.wait.claim_if(seen, wake_reason::cancelled) == wait_word<>::claim_result::schedule)
        schedule(of);
    return true;
}

// Under its lock. Pairs with launch(): a canceller that was late may have come upon another task.
bool is_finished(fiber const& of) {
    return of.state.load(std::memory_order_acquire) == task_state::finished; // end_task()
}

} // namespace

class group_walk {
public:
    static bool hidden(group_state const& group, fiber& host) {
        return visible_cancellation(&group.scope_, host, 0, nullptr) == nullptr;
    }
    static fiber const* host(group_state const& of) { return of.host_; }
    static group_state*& next(group_state& of) { return of.next_queued_; }
    static group_state* next_open(group_state& of) { return of.next_open_; }
    static std::atomic<bool>& queued(group_state& of) { return of.queued_; }

    /// Visits children in turns; each becomes the last. Gives how many are left to visit.
    template <class Visit>
    static std::size_t some_children(group_state& of, std::size_t left, bool first, Visit&& visit) {
        std::lock_guard const guard(of.lock_);
        of.hint_ = true;
        if (first) {
            left = 0;
            if (fiber* child = of.children_) do {
                    ++left;
                    child = child->next_sibling;
                } while (child != of.children_);
        }
        for (unsigned step = 0; step < children_at_once && left > 0; ++step, --left) {
            fiber* const child = of.children_;
            if (child == nullptr) return 0;
            of.children_ = child->next_sibling;
            __builtin_prefetch(child->next_sibling);
            visit(*child);
        }
        return left;
    }
};

namespace {

void delivery::enqueue_groups(fiber& host) noexcept { // under the host's lock
    for (group_state* group = host.open_groups; group != nullptr; group = group_walk::next_open(*group)) {
        std::atomic<bool>& marked = group_walk::queued(*group);
        if (marked.load(std::memory_order_relaxed) || group_walk::hidden(*group, host)) continue; // delivery
        marked.store(true, std::memory_order_relaxed); // under the host's lock
        group_walk::next(*group) = queued;
        queued = group;
    }
}

void delivery::visit(fiber& of) noexcept {
    std::lock_guard const guard(of.scopes);
    if (is_finished(of)) return;
    nudge(of, true);
    if (of.open_groups != nullptr) enqueue_groups(of);
}

void delivery::walk(group_state& group) noexcept { // K3
    std::size_t left = 0;
    bool first = true;
    do {
        left = group_walk::some_children(group, left, first, [this](fiber& child) { visit(child); });
        first = false;
    } while (left > 0);
}

void delivery::walk_all() noexcept {
    while (group_state* const group = queued) {
        queued = group_walk::next(*group);
        walk(*group);
        group_walk::queued(*group).store(false, std::memory_order_release); // I6: the last access
    }
}

} // namespace

std::mutex& delivery_mutex() noexcept {
    return delivery_lock;
}

namespace {

// See visible_cancellation(). Which scope counts as cancelled says is_cancelled(scope, its flags).
template <class IsCancelled>
inline cancel_scope const* walk_outwards(cancel_scope const* innermost, fiber const& walker, unsigned unwinding,
                                         bool* open_end, IsCancelled const& is_cancelled) noexcept {
    fiber const* owner = &walker;
    for (cancel_scope const* scope = innermost; scope != nullptr;) {
        scope_access::flag const flags = scope_access::flags(*scope);
        if ((flags & scope_access::provisional) != 0 && open_end != nullptr) {
            *open_end = true;
            return nullptr;
        }
        // While an exception is in flight, only scopes entered since then are seen: a cancellation
        // thrown from a destructor would end the process. The same holds where a group was opened in
        // such a destructor, for its children.
        fiber const* const scope_owner = scope_access::owner(*scope);
        if (scope_owner == owner ? scope_access::unwinding(*scope) < unwinding : unwinding > 0)
            return nullptr;
        if (is_cancelled(*scope, flags)) return scope;
        if ((flags & scope_access::shielding) != 0) return nullptr;
        // Around a start() that is under way are the scopes of its caller.
        owner = (flags & scope_access::provisional) != 0
                    ? group_walk::host(static_cast<start_record const*>(scope)->group)
                    : scope_owner;
        unwinding = scope_access::unwinding(*scope);
        scope = scope_access::outer(*scope);
    }
    return nullptr;
}

} // namespace

cancel_scope const* visible_cancellation(cancel_scope const* innermost, fiber const& walker,
                                         unsigned unwinding, bool* open_end) noexcept {
    return walk_outwards(innermost, walker, unwinding, open_end,
                         [](cancel_scope const&, scope_access::flag flags) {
                             return (flags & scope_access::called) != 0;
                         });
}

cancel_scope const* nearest_cancelled(fiber& self,
                                      std::shared_ptr<cancel_cause const>* cause) noexcept {
    auto const look = [&self, cause](bool* open_end) {
        unsigned const unwinding = this_worker()->exceptions->uncaught;
        std::lock_guard const guard(self.scopes);
        cancel_scope const* const found =
            visible_cancellation(self.innermost.load(std::memory_order_relaxed), self, // our own
                                 unwinding, open_end);
        if (found != nullptr && cause != nullptr) *cause = scope_access::cause(*found);
        if (found == nullptr && unwinding == 0 && (open_end == nullptr || !*open_end))
            self.attention.fetch_and(~attention::cancel, std::memory_order_relaxed); // I2
        return found;
    };
    bool open_end = false;
    cancel_scope const* const found = look(&open_end);
    if (!open_end) return found;
    std::lock_guard const delivery(delivery_lock);
    return look(nullptr);
}

bool has_pending_cancellation(fiber& of, std::shared_ptr<cancel_cause const>* cause) noexcept {
    auto const look = [&of, cause](bool* open_end) {
        std::lock_guard const guard(of.scopes);
        if (is_finished(of)) return false;
        unsigned unwinding = 0;
        if (current_fiber() == &of)
            unwinding = this_worker()->exceptions->uncaught;
        else if (cause != nullptr || of.state.load(std::memory_order_relaxed) == task_state::waiting) // a report
            unwinding = of.waiting_unwinding.load(std::memory_order_relaxed);                         //  "
        // Who only asks sees a deadline that has passed (C23); who is to throw needs a scope that catches it.
        bool const by_clock = cause == nullptr;
        time_point const now = by_clock ? of.runtime->now() : time_point();
        cancel_scope const* const found =
            walk_outwards(of.innermost.load(std::memory_order_acquire), of, // enter()
                          unwinding, open_end, [&](cancel_scope const& scope, scope_access::flag flags) {
                              return (flags & scope_access::called) != 0 || (by_clock && scope.deadline() <= now);
                          });
        if (found != nullptr && cause != nullptr) *cause = scope_access::cause(*found);
        return found != nullptr;
    };
    bool open_end = false;
    bool const pending = look(&open_end);
    if (!open_end || is_forked_child()) return pending; // there the lock may be nobody's
    std::lock_guard const delivery(delivery_lock);
    return look(nullptr);
}

namespace {

// The scope, if the fiber is in it and it is cancelled. Under the fiber's lock.
cancel_scope* find_cancelled(fiber const& of, cancel_scope const& wanted) noexcept {
    cancel_scope* scope = of.innermost.load(std::memory_order_acquire); // enter()
    while (scope != of.base && scope != &wanted)
        scope = scope_access::outer(*scope);
    if (scope == of.base || (scope_access::flags(*scope) & scope_access::called) == 0) return nullptr;
    return scope;
}

// True: nobody is below the fiber, and that is all.
bool told_alone(fiber& of) noexcept {
    std::lock_guard const guard(of.scopes);
    return is_finished(of) || (nudge(of, false) && of.open_groups == nullptr);
}

} // namespace

// In a child of fork() nobody is there to be told, and the lock may be nobody's.
void deliver_cancellation(fiber& of) noexcept {
    if (told_alone(of) || is_forked_child()) return;
    std::lock_guard const guard(delivery_lock);
    deliver_locked(of);
}

void deliver_cancellation(fiber& of, cancel_scope const& cause, bool first) noexcept {
    if (told_alone(of) || is_forked_child()) return; // as above
    std::lock_guard const guard(delivery_lock);
    if (!first) { // perhaps it was done while we waited for the lock
        std::lock_guard const own(of.scopes);
        if (is_finished(of)) return;
        cancel_scope const* const scope = find_cancelled(of, cause);
        if (scope != nullptr && scope_access::is_delivered(*scope)) return;
    }
    deliver_locked(of);
    std::lock_guard const own(of.scopes);
    if (is_finished(of)) return;
    if (cancel_scope* const scope = find_cancelled(of, cause))
        scope_access::set_flag(*scope, scope_access::delivered);
}

void deliver_locked(fiber& of) noexcept {
    delivery work;
    work.visit(of);
    work.walk_all();
}

} // namespace weft::detail
