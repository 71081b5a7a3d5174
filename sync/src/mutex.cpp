#include <weft/sync/mutex.hpp>

#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/detail/mutex_wait.hpp>
#include <weft/runtime/detail/report.hpp>

#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

// The word, who may change it and when: mutex_word.hpp (I1, I2, I5). Beside it:
//
// I3  The block of an ended task can be told by its state. One that owned a mutex when it ended is never
//     used again.
// I4  A task counts what it owns. If that is not zero when it ends, it looks for all who wait for a mutex
//     of its own, after it was marked as finished. Waiters announce themselves before they look for that
//     mark: one of both sees the other (LK8). Nobody else pays for it.
//
// Rejected: letting newcomers overtake (2-3 times the throughput under contention, no bound on the wait).

namespace weft {

namespace {

using word = detail::mutex_word<>;

detail::fiber* owner_in(word::value seen) {
    return word::owner_in<detail::fiber>(seen);
}

bool has_ended(word::value seen) {
    detail::fiber const* const owner = owner_in(seen);
    return owner != nullptr &&
           owner->state.load(std::memory_order_seq_cst) == task_state::finished; // the owner's fence (I4)
}

// Not within unlock(), which would save registers for it when nobody waits.
[[gnu::noinline]] void hand_over(word& of, detail::wait_queue& queue) {
    if (detail::wait_node* const next = of.hand_over(queue)) detail::wait_queue::deliver(*next);
}

[[noreturn, gnu::cold]] void refuse_owner() {
    throw std::logic_error("the current task holds this mutex already");
}

[[noreturn, gnu::cold]] void refuse_stranger() {
    throw std::logic_error("the current task does not hold this mutex");
}

[[noreturn, gnu::cold]] void refuse_more() {
    throw std::length_error("the current task holds as many mutexes as it can count");
}

[[noreturn, gnu::cold]] void refuse_broken() {
    throw broken_resource_error("the task that held this mutex has ended without unlocking it");
}

} // namespace

struct detail::mutex_access {
    static fiber* owner_of(void* of) noexcept {
        return owner_in(static_cast<mutex*>(of)->word_.look());
    }
    static std::string name_of(fiber& task) { // of one that waits and is known to go on waiting
        task_look const at(task);
        return at ? at.info().name : std::string("?");
    }
    static void owner_ended(fiber& owner) noexcept {
        for_each_mutex_waiter(
            [](fiber&, void* mutex, void* ended) {
                if (owner_of(mutex) == ended) static_cast<weft::mutex*>(mutex)->break_waits();
            },
            &owner);
    }
};

namespace {
constexpr detail::mutex_operations operations{&detail::mutex_access::owner_ended,
                                              &detail::mutex_access::owner_of};
[[maybe_unused]] bool const known_to_runtime = (detail::set_mutex_operations(operations), true);
} // namespace

void mutex::break_waits() noexcept {
    std::lock_guard const guard(queue_);
    queue_.wake_all(detail::wake_reason::broken);
}

#ifdef WEFT_CHECKED
namespace {

struct link_of_cycle {
    detail::fiber* waiter;
    std::uint64_t epoch; // of its wait
    bool operator==(link_of_cycle const&) const = default;
};

// From the waiter to the owner of what it waits for, and so on until the waiter comes again; else empty.
std::vector<link_of_cycle> cycle_of(detail::fiber& waiter) {
    std::vector<link_of_cycle> path;
    for (detail::fiber* at = &waiter; path.size() < 1000;) {
        detail::mutex_wait::look const waits(*at);
        if (waits.mutex() == nullptr) break;
        detail::fiber* const owner = detail::mutex_access::owner_of(waits.mutex());
        auto const wait = at->wait.load(); // after the owner: who was made that has no open wait (U2)
        if (!detail::wait_word<>::is_open(wait)) break;
        path.push_back({at, detail::wait_word<>::epoch_of(wait)});
        at = owner;
        if (at == &waiter) return path;
        if (at == nullptr) break;
    }
    return {};
}

} // namespace

// The one that closes the circle finds it. Looked at twice: if none of its waits has ended in between, it
// is one. A timeout may still resolve it, so that the waits go on.
void mutex::report_cycle(detail::fiber& self) {
    std::atomic_thread_fence(std::memory_order_seq_cst); // pairs with itself: of two that close it, one sees
    std::vector<link_of_cycle> const cycle = cycle_of(self);
    if (cycle.empty() || cycle_of(self) != cycle) return;
    std::string text = "tasks wait for each other's mutexes:";
    for (link_of_cycle const& link : cycle)
        text += std::string(&link == cycle.data() ? " '" : ", which waits for '") +
                detail::mutex_access::name_of(*link.waiter) + "'";
    detail::report_mistake(text + ", which waits for the first again");
}
#else
void mutex::report_cycle(detail::fiber&) {}
#endif

bool mutex::is_owned_by(detail::fiber const& task) const noexcept {
    return owner_in(word_.peek()) == &task; // only it changes that
}

bool mutex::locked() const noexcept {
    return word_.peek() != 0; // a snapshot
}

bool mutex::take_if_free(detail::fiber& self) {
    if (!word_.take_if_free(word::of(self))) return false;
    count_owned(self);
    return true;
}

// False: it is broken, and nobody's to let go. A guard around a condition variable's wait does that when
// the wait could not take the mutex again (CD2, LK8).
inline bool mutex::let_go(detail::fiber const& self) {
    word::value held = 0;
    if (word_.let_go(word::of(self), held)) return true;
    if (owner_in(held) == &self) {
        hand_over(word_, queue_);
        return true;
    }
    if (is_orphaned()) return false;
    refuse_stranger();
}

void mutex::count_owned(detail::fiber& self) {
    if (++self.owned_mutexes != 0) [[likely]]
        return;
    --self.owned_mutexes;
    let_go(self);
    refuse_more();
}

void mutex::lock() {
    detail::fiber& self = queue_.state == 0 ? detail::enter_blocking_call("mutex.lock")
                                            : detail::check_cancellation("mutex.lock");
    if (take_if_free(self)) return;
    take_or_wait(self, "mutex.lock", detail::cancellable::yes);
}

void mutex::lock_uncancellably() {
    detail::fiber& self = detail::require_fiber("condition_variable.wait");
    if (take_if_free(self)) return;
    take_or_wait(self, "condition_variable.wait", detail::cancellable::no);
}

void mutex::take_or_wait(detail::fiber& self, char const* call, detail::cancellable how) {
    if (is_owned_by(self)) refuse_owner();
    if (self.suspension_bans != 0 && is_orphaned()) refuse_broken(); // which waits for nothing
    detail::mutex_wait::announcement const announced(self, this);
    detail::parking wait(call, how);
    detail::wait_node node(wait);
    queue_.lock();
    word::value seen = 0;
    if (word_.take_or_mark(word::of(self), seen)) {
        queue_.unlock();
        wait.withdraw(); // if a canceller was first: it finds the task at its next call (M3)
        count_owned(self);
        return;
    }
    // Marked, under the queue's lock: from here on the owner cannot let go without that lock, so one that
    // has ended has ended as owner.
    if (has_ended(seen)) { // I4: after the announcement
        queue_.unlock();
        wait.withdraw(); // whoever was first: it is broken
        refuse_broken();
    }
    queue_.waiters.push_back(node);
    queue_.unlock();
    report_cycle(self);
    detail::wake_reason const why = wait.suspend();
    if (why == detail::wake_reason::event) return count_owned(self); // U2 has made us the owner
    queue_.leave(node);
    if (why == detail::wake_reason::broken) refuse_broken();
    detail::throw_cancelled(self);
}

bool mutex::try_lock() {
    detail::fiber& self = detail::require_fiber("mutex.try_lock");
    word::value seen = 0;
    if (word_.take(word::of(self), seen)) {
        count_owned(self);
        return true;
    }
    if (owner_in(seen) == &self) refuse_owner();
    if (has_ended(seen) && is_orphaned()) refuse_broken();
    return false;
}

// The same look as in take_or_wait(): an owner that is seen to have ended may have let go before.
bool mutex::is_orphaned() {
    std::lock_guard const guard(queue_);
    return has_ended(word_.mark());
}

void mutex::acquire_nowait() {
    if (!try_lock()) throw would_block("the mutex is held by another task");
}

void mutex::unlock() {
    detail::fiber& self = detail::require_fiber("mutex.unlock");
    if (let_go(self)) [[likely]]
        --self.owned_mutexes;
}

// Waiters and word under the lock, so that they fit together (I1, M13). The owner may let go and end at any
// moment all the same; it is held by a reference while it is described.
lock_statistics mutex::statistics() const {
    for (;;) {
        lock_statistics seen;
        std::optional<detail::task_look> look; // empty: it has ended
        bool is_still_owner = false;
        {
            std::lock_guard const guard(queue_);
            seen.tasks_waiting = queue_.waiters.size();
            detail::fiber* const owner = owner_in(word_.look());
            seen.locked = owner != nullptr;
            if (owner == nullptr) return seen;
            std::lock_guard const own(owner->scopes);
            if (owner->state.load(std::memory_order_relaxed) != task_state::finished) look.emplace(*owner); // its lock
            is_still_owner = owner_in(word_.peek()) == owner;
        }
        if (look && *look && is_still_owner) seen.owner = look->info();
        if (is_still_owner) return seen; // if it has ended, as owner
    }
}

} // namespace weft
