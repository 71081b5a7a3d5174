#pragma once

namespace weft::test {

/// Whether watch_held_locks() can find anything in this build.
#if defined(WEFT_CHECKED) && !defined(__SANITIZE_THREAD__)
inline constexpr bool finds_held_locks = true;
#else
inline constexpr bool finds_held_locks = false;
#endif

/// From now on the program reports each std::mutex or pthread mutex that a task holds while it suspends,
/// with both places: the task may continue on another thread, and others that want the lock block theirs.
/// In checked builds; elsewhere it does nothing. The program links tests/support/held_locks.cpp.
void watch_held_locks();

} // namespace weft::test
