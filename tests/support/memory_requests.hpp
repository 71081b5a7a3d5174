#pragma once

#include <atomic>
#include <cstddef>

/// What a program that replaces operator new (failing_memory.hpp) counts, and what is to fail.
namespace weft::test {

inline std::atomic<std::size_t> allocations = 0;
inline thread_local int requests_until_failure = 0; ///< of this thread: 1 is the next; 0: none fails; -1: the next
                                                    ///< and all others, -2: all but the next

} // namespace weft::test
