#include "timer_heap.hpp"

#include "scope_access.hpp"
#include "sim_schedule.hpp"

#include <mutex>

namespace weft::detail {

namespace {

constexpr std::size_t children = 4;
constexpr std::uintptr_t scope_bit = 1;

bool is_scope(std::uintptr_t timer) { return (timer & scope_bit) != 0; }
cancel_scope& scope_of(std::uintptr_t timer) {
    return *reinterpret_cast<cancel_scope*>(timer & ~scope_bit);
}
fiber& fiber_of(std::uintptr_t timer) { return *reinterpret_cast<fiber*>(timer); }

} // namespace

std::uint32_t& timer_heap::slot_of(std::uintptr_t timer) noexcept {
    return is_scope(timer) ? scope_access::timer_slot(scope_of(timer)) : fiber_of(timer).timer_slot;
}

std::uint16_t& timer_heap::heap_of(std::uintptr_t timer) noexcept {
    return is_scope(timer) ? scope_access::timer_heap_number(scope_of(timer)) : fiber_of(timer).timer_heap;
}

bool timer_heap::insert(fiber& sleeper, time_point when) {
    return insert(reinterpret_cast<std::uintptr_t>(&sleeper), when);
}

bool timer_heap::insert(cancel_scope& scope, time_point when) {
    return insert(reinterpret_cast<std::uintptr_t>(&scope) | scope_bit, when);
}

bool timer_heap::insert(std::uintptr_t timer, time_point when) {
    std::lock_guard const guard(lock_);
    entry const added{when, next_order(), timer};
    entries_.push_back(added); // may throw; nothing else has changed
    heap_of(timer) = number_;
    rise(entries_.size() - 1, added);
    publish();
    return entries_.front().timer == timer;
}

std::optional<bool> timer_heap::move(cancel_scope& scope, time_point when) noexcept {
    std::lock_guard const guard(lock_);
    std::uint32_t const slot = scope_access::timer_slot(scope);
    if (slot == 0) return {};
    time_point const earliest_before = entries_.front().when;
    settle(slot - 1, {when, next_order(), entries_[slot - 1].timer});
    publish();
    return entries_.front().when < earliest_before;
}

bool timer_heap::remove(fiber& sleeper) noexcept {
    std::lock_guard const guard(lock_);
    if (sleeper.timer_slot == 0) return false;
    remove_at(sleeper.timer_slot - 1);
    return true;
}

bool timer_heap::remove(cancel_scope& scope) noexcept {
    std::lock_guard const guard(lock_);
    std::uint32_t const slot = scope_access::timer_slot(scope);
    if (slot == 0) return false;
    remove_at(slot - 1);
    return true;
}

unsigned timer_heap::expire(time_point now) noexcept {
    unsigned expired = 0;
    while (earliest() <= now) {
        lock_.lock();
        if (entries_.empty() || entries_.front().when > now) {
            lock_.unlock();
            break;
        }
        std::uintptr_t const timer = entries_.front().timer;
        // A sleeper's epoch must be read while it is still linked: it leaves the heap before it waits
        // again. A scope is marked, and does not go away before the mark does.
        std::uint64_t epoch = 0;
        if (is_scope(timer))
            scope_access::firing(scope_of(timer)).fetch_add(1, std::memory_order_relaxed); // lock_
        else
            epoch = wait_word<>::epoch_of(fiber_of(timer).wait.load());
        remove_at(0);
        lock_.unlock();
        ++expired;
        if (is_scope(timer))
            scope_access::deadline_reached(scope_of(timer), now);
        else
            wake(fiber_of(timer), epoch, wake_reason::timer);
    }
    return expired;
}

std::uint64_t timer_heap::next_order() noexcept {
    return chance_ == nullptr ? order_++ : chance_->draw_timer_order();
}

void timer_heap::remove_at(std::size_t place) noexcept {
    slot_of(entries_[place].timer) = 0;
    entry const last = entries_.back();
    entries_.pop_back();
    if (place < entries_.size()) settle(place, last);
    publish();
}

void timer_heap::settle(std::size_t place, entry const& what) noexcept {
    if (place > 0 && before(what, entries_[(place - 1) / children]))
        rise(place, what);
    else
        sink(place, what);
}

void timer_heap::put(std::size_t place, entry const& what) noexcept {
    entries_[place] = what;
    slot_of(what.timer) = std::uint32_t(place + 1);
}

void timer_heap::rise(std::size_t place, entry const& what) noexcept {
    while (place > 0) {
        std::size_t const parent = (place - 1) / children;
        if (!before(what, entries_[parent])) break;
        put(place, entries_[parent]);
        place = parent;
    }
    put(place, what);
}

void timer_heap::sink(std::size_t place, entry const& what) noexcept {
    for (;;) {
        std::size_t const first = place * children + 1;
        if (first >= entries_.size()) break;
        std::size_t least = first;
        std::size_t const end = std::min(first + children, entries_.size());
        for (std::size_t child = first + 1; child < end; ++child)
            if (before(entries_[child], entries_[least])) least = child;
        if (!before(entries_[least], what)) break;
        put(place, entries_[least]);
        place = least;
    }
    put(place, what);
}

void timer_heap::publish() noexcept {
    auto const next = entries_.empty() ? time_point::max() : entries_.front().when;
    duration::rep const count = next.time_since_epoch().count();
    if (earliest_.load(std::memory_order_relaxed) != count) // written under lock_ only
        earliest_.store(count, std::memory_order_seq_cst);  // pairs with earliest()
    size_.store(entries_.size(), std::memory_order_relaxed); // a hint
}

} // namespace weft::detail
