#include <weft/runtime/blocking_region.hpp>

#include "abort.hpp"
#include "context_switch.hpp"
#include "context_values.hpp"
#include "runtime.hpp"
#include "scope_access.hpp"
#include "task.hpp"

#include <weft/runtime/detail/fork.hpp>

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

namespace weft {

blocking_region::blocking_region() {
    detail::fiber& self = detail::require_fiber("blocking_region");
    detail::check_may_suspend(self, "blocking_region");
    detail::worker& here = *detail::this_worker();
    detail::scope_access::arm_deadlines(self); // as before any wait
    if (here.simulated || here.pinned_tasks != 0) return;
    scheduler_context_ = here.scheduler_context;
    here.current = nullptr;
    detail::set_this_worker(nullptr);
    try {
        here.run_of.hand_over(here);
    } catch (...) {
        detail::set_this_worker(&here);
        here.current = &self;
        throw;
    }
    self.waiting_on.store("blocking_region", std::memory_order_relaxed); // for reports
    detail::swap_with_thread(self);
    outer_stack_ = detail::exchange_stack_in_region(self.stack);
    task_ = &self;
}

blocking_region::~blocking_region() {
    if (task_ == nullptr) return;
    if (detail::is_forked_child()) // nobody is there who could take the task
        detail::die("a blocking_region was left in a child of fork(), where its run did not come along: "
                    "leave such a child by exec or _exit");
    detail::exchange_stack_in_region(outer_stack_);
    detail::swap_with_thread(*task_);
    detail::worker::leave_thread(*task_, scheduler_context_);
}

} // namespace weft
