#pragma once

#include <cstdint>

namespace weft::detail {

struct worker;

/// The worker that the calling thread is, or null.
///
/// A fiber may continue on another thread after any suspension, so neither this value nor the address
/// it is read from may be kept across one. The functions are defined in a translation unit of their
/// own, compiled without LTO, and never inlined: a compiler that sees the thread_local caches its
/// address (gcc and clang both do, with -fPIC).
worker* this_worker() noexcept;
void set_this_worker(worker*) noexcept;

/// errno of the calling thread, read and written where no compiler can cache its address.
int load_errno() noexcept;
void store_errno(int) noexcept;

/// What the C++ runtime keeps for each thread and a fiber must take along.
struct exception_globals {
    void* caught;
    unsigned uncaught;
};
exception_globals* this_thread_exception_globals() noexcept;

/// Locks held by this thread, for the rank check of debug builds.
struct held_locks {
    std::uint8_t ranks[16];
    unsigned count;
};
held_locks& this_thread_locks() noexcept;

} // namespace weft::detail
