#pragma once

namespace weft::detail {

/// From now on a fault in a stack's guard ends the process with a message that names the fiber, its
/// stack and its spawn site; any other fault goes to whoever handled it before. Once a process.
void report_overflows();

/// Gives the calling thread a stack for that handler: the fiber's own is full.
void prepare_thread_for_overflow() noexcept;

} // namespace weft::detail
