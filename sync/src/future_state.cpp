#include <weft/sync/detail/future_state.hpp>

#include "claimed_waiters.hpp"
#include "futex.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/outside_work.hpp>
#include <weft/runtime/detail/patience.hpp>
#include <weft/sync/error.hpp>

#include <stdexcept>
#include <utility>

namespace weft::detail {

namespace {

// The word that OS threads wait for: nobody -> waiting (a thread, before it sleeps) -> done (finish()).
constexpr std::uint32_t nobody = 0, waiting = 1, done = 2;

[[gnu::noinline]] patience& patience_of_thread() {
    thread_local patience of_thread;
    return of_thread;
}

} // namespace

bool future_state::begin(state next) noexcept {
    state expected = state::pending;
    return now_.compare_exchange_strong(expected, next, std::memory_order_relaxed); // CAS decides
}

void future_state::begin_setting_or_throw() {
    if (begin(state::setting)) return;
    state const seen = now();
    if (seen == state::cancelling || seen == state::cancelled) throw future_cancelled();
    throw std::logic_error("the promise has been kept already");
}

void future_state::fail(std::exception_ptr error) noexcept {
    error_ = std::move(error);
    finish(state::failed);
}

bool future_state::cancel() {
    if (!begin(state::cancelling)) return false;
    on_cancel();
    finish(state::cancelled);
    return true;
}

// The caller holds the state: whoever is woken may drop the last other reference.
void future_state::finish(state outcome) noexcept {
    now_.store(outcome, std::memory_order_release); // pairs with now()
    claimed_waiters woken;
    std::unique_ptr<callback> to_call;
    {
        std::lock_guard const guard(fibers_);
        woken.claim_all(fibers_);
        to_call = std::move(callbacks_);
    }
    woken.deliver_all();
    if (threads_.exchange(done, std::memory_order_acq_rel) == waiting) // pairs with wait_in_thread()
        futex_wake_all(threads_);
    std::unique_ptr<callback> in_order; // the last one added is the first in the list
    while (to_call != nullptr) {
        std::unique_ptr<callback> rest = std::move(to_call->next);
        to_call->next = std::move(in_order);
        in_order = std::exchange(to_call, std::move(rest));
    }
    while (in_order != nullptr) {
        (*in_order)();
        in_order = std::move(in_order->next);
    }
}

void future_state::add_callback(std::unique_ptr<callback> added) {
    {
        std::lock_guard const guard(fibers_);
        if (!is_done()) { // else finish() may have taken the list
            added->next = std::move(callbacks_);
            callbacks_ = std::move(added);
            return;
        }
    }
    (*added)();
}

void future_state::wait_for_value(char const* call) {
    wait_until_done(duration::max(), call);
    switch (now()) {
    case state::failed:
        std::rethrow_exception(error_);
    case state::cancelled:
        throw future_cancelled();
    case state::pending:
    case state::setting:
    case state::cancelling:
    case state::value:
        return;
    }
}

bool future_state::wait_until_done(duration at_most, char const* call) {
    if (current_fiber() == nullptr) return wait_in_thread(at_most);
    enter_blocking_call(call);
    if (is_done()) return true;
    if (at_most <= duration::zero()) return false;
    time_point const now = current_time();
    return wait_in_fiber(at_most < time_point::max() - now ? now + at_most : time_point::max(), call);
}

bool future_state::wait_in_fiber(time_point deadline, char const* call) {
    parking wait(call);
    wait_node node(wait);
    std::optional<outside_work> of_another_run;
    if (completed_in_ != nullptr && completed_in_ != wait.owner().runtime)
        of_another_run.emplace(outside_work::kind::call);
    {
        std::lock_guard const guard(fibers_);
        if (is_done()) {
            wait.withdraw(); // if a canceller was first: it finds the task at its next call (M3)
            return true;
        }
        fibers_.waiters.push_back(node);
    }
    wake_reason why;
    try {
        why = wait.suspend_until(deadline);
    } catch (...) { // no memory for the timer
        fibers_.leave(node);
        throw;
    }
    if (why == wake_reason::event) return true;
    fibers_.leave(node);
    if (why == wake_reason::cancelled) throw_cancelled(wait.owner());
    return is_done();
}

// A condition variable would have the waiter, once woken, wait for its mutex a second time.
bool future_state::wait_in_thread(duration at_most) {
    if (is_done()) return true;
    refuse_in_forked_child("waiting for a future");
    if (at_most <= duration::zero()) return false;
    std::int64_t const start = patience::now();
    patience& mine = patience_of_thread();
    bool const seen_at_once = mine.look_for([this] { return is_done(); }, at_most.count());
    while (!seen_at_once) {
        std::uint32_t seen = nobody;
        if (!threads_.compare_exchange_strong(seen, waiting,
                                              std::memory_order_acquire) && // pairs with finish()
            seen == done)
            break;
        std::int64_t const waited = patience::now() - start;
        if (waited >= at_most.count()) return is_done();
        futex_wait(threads_, waiting,
                   at_most == duration::max() ? -1 : at_most.count() - waited);
    }
    mine.learn(patience::now() - start);
    return true;
}

} // namespace weft::detail
