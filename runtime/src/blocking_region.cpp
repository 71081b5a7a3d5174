#include <weft/runtime/blocking_region.hpp>

#include "abort.hpp"
#include "context_switch.hpp"
#include "context_values.hpp"
#include "runtime.hpp"
#include "scope_access.hpp"
#include "task.hpp"

#include <weft/runtime/detail/fork.hpp>

#include <utility>

// How a worker goes from one thread to another and the task comes back.
//
//   thread A, on the task's stack                    thread B, a spare one or new
//   B1  keep the worker's scheduler context: it is A's
//   B2  no longer a worker; hand the worker over     B3  becomes the worker: runs its loop
//   ... the task blocks A ...
//   B4  jump to A's scheduler context
//   B5  there: make the task ready, leave the loop, be a spare thread
//
// The worker itself does not notice: at each moment one thread runs it, and the hand-over goes by a lock.
//
// Where the thread must stay with its worker there is nobody to hand it to, but the thread steps out of it all the
// same: what is refused elsewhere is refused there, too, and what the region makes ready goes by the queue for
// what comes from outside. Rejected: to take only the worker's `current` away. Half of what needs a run
// would have gone on working, and run() would not.

namespace weft {

namespace {

thread_local blocking_region const* innermost_with_worker = nullptr; // of this thread

[[gnu::noinline]] blocking_region const* exchange_innermost(blocking_region const* by) noexcept {
    blocking_region const* const before = std::exchange(innermost_with_worker, by);
    asm volatile("" : : : "memory");
    return before;
}

[[gnu::noinline]] blocking_region const* innermost() noexcept {
    blocking_region const* found = innermost_with_worker;
    asm volatile("" : "+r"(found) : : "memory");
    return found;
}

} // namespace

blocking_region::blocking_region() {
    detail::fiber& self = detail::require_fiber("blocking_region");
    detail::check_may_suspend(self, "blocking_region");
    detail::worker& here = *detail::this_worker();
    detail::scope_access::arm_deadlines(self); // as before any wait
    if (here.simulated || here.pinned_tasks != 0)
        step_out(here);
    else
        hand_over(here, self);
    self.waiting_on.store("blocking_region", std::memory_order_relaxed); // for reports
    detail::swap_with_thread(self);
    outer_task_ = detail::exchange_fiber_in_region(&self);
    task_ = &self;
}

void blocking_region::step_out(detail::worker& here) noexcept {
    own_worker_ = &here;
    outer_ = exchange_innermost(this);
    detail::set_this_worker(nullptr);
}

void blocking_region::hand_over(detail::worker& here, detail::fiber& self) {
    scheduler_context_ = here.scheduler_context;
    here.current.store(nullptr, std::memory_order_relaxed); // a hint for the monitor
    detail::set_this_worker(nullptr);
    try {
        here.run_of.hand_over(here);
    } catch (...) {
        detail::set_this_worker(&here);
        here.current.store(&self, std::memory_order_relaxed); // a hint for the monitor
        throw;
    }
}

blocking_region::~blocking_region() {
    if (detail::is_forked_child()) // nobody is there who could take the task
        detail::die("a blocking_region was left in a child of fork(), where its run did not come along: "
                    "leave such a child by exec or _exit");
    detail::exchange_fiber_in_region(outer_task_);
    detail::swap_with_thread(*task_);
    if (own_worker_ == nullptr) {
        detail::worker::leave_thread(*task_, scheduler_context_);
    } else {
        exchange_innermost(outer_);
        detail::set_this_worker(own_worker_);
    }
}

bool blocking_region::keeps_worker_of(detail::runtime const* run) noexcept {
    for (blocking_region const* each = innermost(); each != nullptr; each = each->outer_)
        if (&each->own_worker_->run_of == run) return true;
    return false;
}

bool detail::is_kept_by_region(runtime const* run) noexcept {
    return blocking_region::keeps_worker_of(run);
}

} // namespace weft
