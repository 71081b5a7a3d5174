#include "this_thread.hpp"

#include <cerrno>
#include <cxxabi.h>

namespace weft::detail {

namespace {
thread_local worker* current_worker = nullptr;
thread_local held_locks locks{};
} // namespace

[[gnu::noinline]] worker* this_worker() noexcept {
    worker* found = current_worker;
    asm volatile("" : "+r"(found) : : "memory");
    return found;
}

[[gnu::noinline]] void set_this_worker(worker* mine) noexcept {
    current_worker = mine;
    asm volatile("" : : : "memory");
}

[[gnu::noinline]] int load_errno() noexcept {
    int value = errno;
    asm volatile("" : "+r"(value) : : "memory");
    return value;
}

[[gnu::noinline]] void store_errno(int value) noexcept {
    errno = value;
    asm volatile("" : : : "memory");
}

[[gnu::noinline]] exception_globals* this_thread_exception_globals() noexcept {
    auto* found = reinterpret_cast<exception_globals*>(abi::__cxa_get_globals());
    asm volatile("" : "+r"(found) : : "memory");
    return found;
}

[[gnu::noinline]] held_locks& this_thread_locks() noexcept {
    held_locks* found = &locks;
    asm volatile("" : "+r"(found) : : "memory");
    return *found;
}

} // namespace weft::detail
