#pragma once

#include <sys/types.h>

namespace weft::detail {

/// Takes over a child of ours that was killed and has not quite ended. In a run this returns at
/// once, and run() returns only when the child is reaped; outside it waits for the end.
void reap_in_background(::pid_t) noexcept;

} // namespace weft::detail
