#include <weft/sync/capacity_limiter.hpp>

#include "claimed_waiters.hpp"

#include <cmath>
#include <mutex>
#include <stdexcept>
#include <utility>

// Everything under the queue's lock, and no allocation there: an entry of the set is made beforehand and
// put in as it is. A waiter's entry waits in its frame until somebody lends it a token.

namespace weft {

namespace {

enum class grant : std::uint64_t { lent, borrowed_already }; // in the waiter's node

double checked(double tokens) {
    if (std::isnan(tokens) || (std::isfinite(tokens) && std::floor(tokens) != tokens))
        throw std::invalid_argument("total_tokens must be a whole number or infinity");
    if (tokens < 0) throw std::invalid_argument("total_tokens must not be negative");
    return tokens;
}

[[noreturn, gnu::cold]] void refuse_second() {
    throw std::logic_error("this borrower already holds one of this capacity limiter's tokens");
}

} // namespace

capacity_limiter::capacity_limiter(double total_tokens) : total_(checked(total_tokens)) {}

capacity_limiter::entry capacity_limiter::make_entry(void const* borrower) {
    borrower_set maker{borrower};
    return maker.extract(maker.begin());
}

bool capacity_limiter::is_free() const {
    return double(borrowers_.size()) < total_;
}

// Under the lock. Whether the borrower has one already comes first (CL2).
capacity_limiter::attempt capacity_limiter::take(entry& borrower) {
    if (borrowers_.contains(borrower.value())) return attempt::refused;
    if (!is_free() || !queue_.waiters.empty()) return attempt::must_wait;
    borrowers_.insert(std::move(borrower));
    return attempt::taken;
}

// As many as are free now, to whoever waited longest (CL4, CL5).
void capacity_limiter::lend(detail::claimed_waiters& granted) {
    while (is_free()) {
        detail::wait_node* const node = queue_.claim_front();
        if (node == nullptr) return;
        auto outcome = borrowers_.insert(std::move(*static_cast<entry*>(node->payload)));
        node->detail = std::uint64_t(outcome.inserted ? grant::lent : grant::borrowed_already);
        if (!outcome.inserted) *static_cast<entry*>(node->payload) = std::move(outcome.node);
        granted.add(*node);
    }
}

capacity_limiter::attempt capacity_limiter::take_now(entry& borrower) {
    attempt outcome;
    {
        std::lock_guard const guard(queue_);
        outcome = take(borrower);
    }
    if (outcome == attempt::refused) refuse_second();
    return outcome;
}

void capacity_limiter::take_or_wait(void const* for_whom, char const* call) {
    entry borrower = make_entry(for_whom);
    if (take_now(borrower) == attempt::taken) return;
    detail::parking wait(call);
    detail::wait_node node(wait);
    node.payload = &borrower;
    attempt outcome;
    {
        std::lock_guard const guard(queue_);
        outcome = take(borrower);
        if (outcome == attempt::must_wait) queue_.waiters.push_back(node);
    }
    if (outcome != attempt::must_wait) {
        wait.withdraw(); // if a canceller was first: it finds the task at its next call (M3)
        if (outcome == attempt::refused) refuse_second();
        return;
    }
    if (wait.suspend() == detail::wake_reason::cancelled) {
        queue_.leave(node);
        detail::throw_cancelled(wait.owner());
    }
    if (grant(node.detail) == grant::borrowed_already) refuse_second();
}

void capacity_limiter::acquire() {
    detail::fiber& self = detail::enter_blocking_call("capacity_limiter.acquire");
    take_or_wait(&self, "capacity_limiter.acquire");
}

void capacity_limiter::acquire_on_behalf_of(void const* borrower) {
    detail::enter_blocking_call("capacity_limiter.acquire_on_behalf_of");
    take_or_wait(borrower, "capacity_limiter.acquire_on_behalf_of");
}

bool capacity_limiter::try_acquire() {
    return try_acquire_on_behalf_of(&detail::require_fiber("capacity_limiter.try_acquire"));
}

bool capacity_limiter::try_acquire_on_behalf_of(void const* borrower) {
    entry made = make_entry(borrower);
    return take_now(made) == attempt::taken;
}

void capacity_limiter::acquire_nowait() {
    acquire_on_behalf_of_nowait(&detail::require_fiber("capacity_limiter.acquire_nowait"));
}

void capacity_limiter::acquire_on_behalf_of_nowait(void const* borrower) {
    if (!try_acquire_on_behalf_of(borrower)) throw would_block("no token of the limiter is free");
}

void capacity_limiter::release() {
    release_on_behalf_of(&detail::require_fiber("capacity_limiter.release"));
}

void capacity_limiter::release_on_behalf_of(void const* borrower) {
    entry returned;
    detail::claimed_waiters granted;
    {
        std::lock_guard const guard(queue_);
        returned = borrowers_.extract(borrower);
        if (!returned.empty()) lend(granted);
    }
    granted.deliver_all();
    if (returned.empty())
        throw std::logic_error("this borrower holds none of this capacity limiter's tokens");
}

void capacity_limiter::set_total_tokens(double total) {
    checked(total);
    detail::claimed_waiters granted;
    {
        std::lock_guard const guard(queue_);
        total_ = total;
        lend(granted);
    }
    granted.deliver_all();
}

double capacity_limiter::total_tokens() const {
    std::lock_guard const guard(queue_);
    return total_;
}

double capacity_limiter::borrowed_tokens() const {
    std::lock_guard const guard(queue_);
    return double(borrowers_.size());
}

double capacity_limiter::available_tokens() const {
    std::lock_guard const guard(queue_);
    return total_ - double(borrowers_.size());
}

capacity_limiter_statistics capacity_limiter::statistics() const {
    capacity_limiter_statistics seen;
    for (std::size_t room = 8;; room *= 2) { // no allocation under the lock
        seen.borrowers.reserve(room);
        std::lock_guard const guard(queue_);
        if (borrowers_.size() > seen.borrowers.capacity()) continue;
        seen.borrowers.assign(borrowers_.begin(), borrowers_.end());
        seen.borrowed_tokens = double(borrowers_.size());
        seen.total_tokens = total_;
        seen.tasks_waiting = queue_.waiters.size();
        return seen;
    }
}

} // namespace weft
