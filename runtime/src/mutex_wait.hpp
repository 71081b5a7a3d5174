#pragma once

#include <weft/runtime/detail/mutex_wait.hpp>

#include <exception>
#include <string>

namespace weft::detail {

/// The task has ended as owner of mutexes.
void tell_mutex_waiters(fiber& owner) noexcept;

/// What a task whose body has ended normally fails with in checked builds, or null: it owns mutexes (LK8).
std::exception_ptr mutex_left_locked(fiber const&);

/// Who holds the mutex that the fiber waits for, for people: "", or "held by task 'x' (7)".
std::string describe_holder(fiber const& waiter);

} // namespace weft::detail
