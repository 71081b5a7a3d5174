#include "mutex_wait.hpp"

#include "abort.hpp"
#include "error_pointer.hpp"
#include "fiber_slab.hpp"
#include "task.hpp"

#include <weft/runtime/detail/group_state.hpp>

#include <optional>
#include <stdexcept>

namespace weft::detail {

namespace {
std::atomic<mutex_operations const*> operations = nullptr;
}

void set_mutex_operations(mutex_operations const& known) noexcept {
    operations.store(&known, std::memory_order_release); // pairs with those who load it
}

void mutex_wait::end_after_look() noexcept {
    std::uintptr_t seen = mutex_.load(std::memory_order_relaxed); // the CAS decides
    for (;;) {
        seen &= ~looked_at;
        if (mutex_.compare_exchange_weak(seen, 0, std::memory_order_acquire)) return; // pairs with ~look
        pause_cpu();
    }
}

mutex_wait::look::look(fiber const& waiter) noexcept : wait_(of(waiter)) {
    // Another's look is waited for: an owner that ends must not pass by a waiter because of it.
    for (;;) {
        std::uintptr_t seen = wait_.mutex_.load(std::memory_order_seq_cst); // the announcement
        if (seen == 0) return;
        if ((seen & looked_at) == 0 &&
            wait_.mutex_.compare_exchange_weak(seen, seen | looked_at, std::memory_order_acquire)) { //  "
            mutex_ = seen;
            return;
        }
        pause_cpu();
    }
}

mutex_wait::look::~look() {
    if (mutex_ != 0) wait_.mutex_.store(mutex_, std::memory_order_release); // the end
}

void for_each_mutex_waiter(void (*visit)(fiber& waiter, void* mutex, void* argument), void* argument) {
    fiber_slabs::for_each([&](fiber& each) {
        mutex_wait::look const at(each);
        if (at.mutex() != nullptr) visit(each, at.mutex(), argument);
    });
}

void tell_mutex_waiters(fiber& owner) noexcept {
    // The task is marked as finished: who announced itself before this is found, who does so after it sees
    // the mark.
    std::atomic_thread_fence(std::memory_order_seq_cst); // pairs with arm() of the waiters
    if (auto const* const known = operations.load(std::memory_order_acquire)) // set_mutex_operations()
        known->owner_ended(owner);
}

#ifdef WEFT_CHECKED
std::exception_ptr mutex_left_locked(fiber const& ended) noexcept {
    if (ended.owned_mutexes == 0) return nullptr;
    return error_or_bad_alloc([&ended] {
        return std::logic_error(describe_origin(ended) + ", ended without unlocking a mutex");
    });
}

std::exception_ptr mutex_left_locked() noexcept {
    return mutex_left_locked(*current_fiber());
}
#endif

std::string describe_holder(fiber const& waiter) {
    auto const* const known = operations.load(std::memory_order_acquire); // set_mutex_operations()
    mutex_wait::look const at(waiter);
    if (at.mutex() == nullptr || known == nullptr) return {};
    fiber* const owner = known->owner_of(at.mutex());
    if (owner == nullptr) return {};
    std::optional<task_look> look;
    {
        std::lock_guard const guard(owner->scopes);
        if (owner->state.load(std::memory_order_relaxed) == task_state::finished) // under its lock
            return "held by a task that has ended";
        look.emplace(*owner);
    }
    if (!*look) return {};
    return "held by task '" + task_name(*owner) + "' (" + std::to_string(owner->id) + ")";
}

} // namespace weft::detail
