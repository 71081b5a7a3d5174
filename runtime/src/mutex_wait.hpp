#pragma once

#include <weft/runtime/detail/mutex_wait.hpp>

#include <string>

namespace weft::detail {

/// The task has ended as owner of mutexes.
void tell_mutex_waiters(fiber& owner) noexcept;

/// Who holds the mutex that the fiber waits for, for people: "", or "held by task 'x' (7)".
std::string describe_holder(fiber const& waiter);

} // namespace weft::detail
