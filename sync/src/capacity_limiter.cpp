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

[[noreturn, gnu::cold]] void refuse_to_wait() {
    throw would_block("no token of the limiter is free");
}

} // namespace

capacity_limiter::capacity_limiter(double total_tokens) : total_(checked(total_tokens)) {}

capacity_limiter::entry capacity_limiter::make_entry(holder const& whose) {
    borrower_set maker{whose};
    return maker.extract(maker.begin());
}

capacity_limiter::holder capacity_limiter::current_task(char const* call) {
    detail::fiber const& self = detail::require_fiber(call);
    return {&self, detail::identity_of(self)};
}

bool capacity_limiter::is_free() const {
    return double(borrowers_.size()) < total_;
}

// Under the lock. Whether the borrower has one already comes first (CL2).
capacity_limiter::attempt capacity_limiter::take(entry& taker) {
    if (borrowers_.contains(taker.value())) return attempt::refused;
    if (!is_free() || !queue_.waiters.empty()) return attempt::must_wait;
    borrowers_.insert(std::move(taker));
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

capacity_limiter::attempt capacity_limiter::take_now(entry& taker) {
    attempt outcome;
    {
        std::lock_guard const guard(queue_);
        outcome = take(taker);
    }
    if (outcome == attempt::refused) refuse_second();
    return outcome;
}

void capacity_limiter::take_or_wait(holder const& for_whom, char const* call) {
    entry taker = make_entry(for_whom);
    if (take_now(taker) == attempt::taken) return;
    detail::parking wait(call);
    detail::wait_node node(wait);
    node.payload = &taker;
    attempt outcome;
    {
        std::lock_guard const guard(queue_);
        outcome = take(taker);
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
    detail::fiber const& self = detail::enter_blocking_call("capacity_limiter.acquire");
    take_or_wait({&self, detail::identity_of(self)}, "capacity_limiter.acquire");
}

void capacity_limiter::acquire_on_behalf_of(void const* borrower) {
    detail::enter_blocking_call("capacity_limiter.acquire_on_behalf_of");
    take_or_wait({borrower}, "capacity_limiter.acquire_on_behalf_of");
}

bool capacity_limiter::try_acquire() {
    return try_acquire_for(current_task("capacity_limiter.try_acquire"));
}

bool capacity_limiter::try_acquire_on_behalf_of(void const* borrower) {
    return try_acquire_for({borrower});
}

bool capacity_limiter::try_acquire_for(holder const& whom) {
    entry made = make_entry(whom);
    return take_now(made) == attempt::taken;
}

void capacity_limiter::acquire_nowait() {
    if (!try_acquire_for(current_task("capacity_limiter.acquire_nowait"))) refuse_to_wait();
}

void capacity_limiter::acquire_on_behalf_of_nowait(void const* borrower) {
    if (!try_acquire_for({borrower})) refuse_to_wait();
}

void capacity_limiter::release() {
    release_for(current_task("capacity_limiter.release"));
}

void capacity_limiter::release_on_behalf_of(void const* borrower) {
    release_for({borrower});
}

void capacity_limiter::release_for(holder const& whom) {
    entry returned;
    detail::claimed_waiters granted;
    {
        std::lock_guard const guard(queue_);
        returned = borrowers_.extract(whom);
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
        for (holder const& each : borrowers_)
            seen.borrowers.push_back(each.address);
        seen.borrowed_tokens = double(borrowers_.size());
        seen.total_tokens = total_;
        seen.tasks_waiting = queue_.waiters.size();
        return seen;
    }
}

} // namespace weft
