#pragma once

#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/lowlevel.hpp>

#include <atomic>
#include <cstdint>

#include <unistd.h>

namespace weft::test {

[[gnu::noinline]] inline int thread_number() {
    int const number = ::gettid();
    asm volatile("" ::: "memory");
    return number;
}

/// Where a task waits for a helper on another thread: that one takes it over when it wakes it.
///
/// Needs two workers, and two pinned tasks that help() until `stop` is set.
struct ferry {
    std::atomic<detail::fiber*> waiter{nullptr};
    std::atomic<std::uint64_t> epoch{0};
    std::atomic<int> thread{0};
    std::atomic<int> helpers{0};
    std::atomic<bool> stop{false};

    /// Returns on another thread, if it can be had; else false.
    bool migrate() {
        int const here = thread_number();
        for (int time = 0; time < 10'000; ++time) {
            detail::parking wait("ferry");
            epoch = wait.epoch();
            thread = thread_number();
            waiter = &wait.owner();
            wait.suspend();
            if (thread_number() != here) return true;
        }
        return false;
    }
    void help() {
        ++helpers;
        while (helpers < 2) {} // keeps its worker, so that the other helper gets another one
        while (!stop) {
            detail::fiber* waiting = waiter;
            if (waiting != nullptr && thread != thread_number() &&
                waiter.compare_exchange_strong(waiting, nullptr))
                detail::wake(*waiting, epoch, detail::wake_reason::event);
            lowlevel::checkpoint();
        }
    }
};

} // namespace weft::test
