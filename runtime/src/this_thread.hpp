#pragma once

#include <cstdint>

namespace weft::detail {

struct fiber;
struct worker;

/// The worker that the calling thread is, or null.
///
/// A fiber may continue on another thread after any suspension, so neither this value nor the address
/// it is read from may be kept across one. A compiler that sees the thread_local caches its address
/// (gcc and clang both do, with -fPIC), so it sees two instructions that it may not move or merge. Where
/// these are not known, and for everything else that is kept per thread, there are functions in a
/// translation unit of their own, compiled without LTO, and never inlined.
#if defined(__x86_64__)
inline worker* this_worker() noexcept {
    worker* found;
    asm volatile("movq weft_current_worker@gottpoff(%%rip), %0\n\t"
                 "movq %%fs:(%0), %0"
                 : "=r"(found)
                 :
                 : "memory");
    return found;
}
#else
worker* this_worker() noexcept;
#endif
void set_this_worker(worker*) noexcept;

/// Where errno of the calling thread is: for workers to keep, whose thread does not change.
int* this_thread_errno() noexcept;

/// What the C++ runtime keeps for each thread and a fiber must take along.
struct exception_globals {
    void* caught;
    unsigned uncaught;
};
exception_globals* this_thread_exception_globals() noexcept;

/// The fiber that came back from a blocking_region to its thread's own stack; for who finds it there.
fiber* this_thread_arrival() noexcept;
void set_this_thread_arrival(fiber*) noexcept;

/// Locks held by this thread, for the rank check of debug builds.
struct held_locks {
    std::uint8_t ranks[16];
    unsigned count;
};
held_locks& this_thread_locks() noexcept;

} // namespace weft::detail
