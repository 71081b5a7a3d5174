#include "this_thread.hpp"

#include <cerrno>
#include <cxxabi.h>

// Not in a namespace: assembly refers to it.
extern "C" {
extern thread_local weft::detail::worker* weft_current_worker;
thread_local weft::detail::worker* weft_current_worker = nullptr;
}

namespace weft::detail {

namespace {
thread_local held_locks locks{};
thread_local fiber* arrival = nullptr;
} // namespace

#if !defined(__x86_64__)
[[gnu::noinline]] worker* this_worker() noexcept {
    worker* found = weft_current_worker;
    asm volatile("" : "+r"(found) : : "memory");
    return found;
}
#endif

[[gnu::noinline]] void set_this_worker(worker* mine) noexcept {
    weft_current_worker = mine;
    asm volatile("" : : : "memory");
}

[[gnu::noinline]] int* this_thread_errno() noexcept {
    int* found = &errno;
    asm volatile("" : "+r"(found) : : "memory");
    return found;
}

[[gnu::noinline]] exception_globals* this_thread_exception_globals() noexcept {
    auto* found = reinterpret_cast<exception_globals*>(abi::__cxa_get_globals());
    asm volatile("" : "+r"(found) : : "memory");
    return found;
}

[[gnu::noinline]] fiber* this_thread_arrival() noexcept {
    fiber* found = arrival;
    asm volatile("" : "+r"(found) : : "memory");
    return found;
}

[[gnu::noinline]] void set_this_thread_arrival(fiber* came) noexcept {
    arrival = came;
    asm volatile("" : : : "memory");
}

[[gnu::noinline]] held_locks& this_thread_locks() noexcept {
    held_locks* found = &locks;
    asm volatile("" : "+r"(found) : : "memory");
    return *found;
}

} // namespace weft::detail
