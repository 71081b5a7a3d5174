#include <weft/runtime/this_task.hpp>

#include "runtime.hpp"
#include "task.hpp"

#include <stdexcept>

namespace weft {

no_suspend::no_suspend() {
    detail::fiber& self = detail::require_fiber("no_suspend");
    if (++self.suspension_bans != 0) [[likely]]
        return;
    --self.suspension_bans;
    throw std::length_error("the current task has as many no_suspend guards as it can count");
}
no_suspend::~no_suspend() {
    --detail::current_fiber()->suspension_bans;
}

// Outermost or not: the ban that pinned the fiber lifts it.
no_migrate::no_migrate() : outermost_(false) {
    detail::fiber& self = detail::require_fiber("no_migrate");
    outermost_ = self.pinned_to.load(std::memory_order_relaxed) == detail::fiber::any_worker; // ours
    if (!outermost_) return;
    detail::worker& here = *detail::this_worker();
    self.pinned_to.store(std::uint16_t(here.index), std::memory_order_relaxed); // ours
    ++here.pinned_tasks;
}
no_migrate::~no_migrate() {
    if (!outermost_) return;
    detail::fiber& self = *detail::current_fiber();
    self.pinned_to.store(detail::fiber::any_worker, std::memory_order_relaxed); // ours
    --detail::this_worker()->pinned_tasks;
}

namespace this_task {

std::size_t stack_remaining() {
    detail::fiber& self = detail::require_fiber("this_task::stack_remaining");
    auto const* const here = static_cast<char const*>(__builtin_frame_address(0));
    return std::size_t(here - self.stack->lowest);
}

std::uint64_t id() {
    return detail::require_fiber("this_task::id").id;
}

std::string name() {
    return detail::task_name(detail::require_fiber("this_task::name"));
}

} // namespace this_task
} // namespace weft
