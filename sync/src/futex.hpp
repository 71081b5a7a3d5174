#pragma once

#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace weft::detail {

/// Sleeps while the word has that value, no longer than given in ns; negative: for ever. May wake for no
/// reason. OS threads only.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t while_it_is,
                       std::int64_t at_most) noexcept {
    constexpr std::int64_t second = 1'000'000'000;
    ::timespec const limit{time_t(at_most / second), long(at_most % second)};
    ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, while_it_is, at_most < 0 ? nullptr : &limit,
              nullptr, 0);
}

inline void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
    ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

} // namespace weft::detail
