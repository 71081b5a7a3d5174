#pragma once

namespace weft::detail {

/// Ends the process for a broken invariant: the text goes to standard error, then abort().
[[noreturn, gnu::format(printf, 1, 2), gnu::cold]] void die(char const* format, ...) noexcept;

inline void pause_cpu() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

} // namespace weft::detail
