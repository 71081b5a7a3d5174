#pragma once

#include "support/run_test.hpp"

#include <atomic>
#include <csignal>
#include <functional>

/// What tests of signals share: they send them to their own process, so there is no "sim".
namespace weft::test {

inline void run_with_signals(std::function<void()> const& body, unsigned times = 1) {
    run_test({.seeds = {}, .times = times}, body);
}

// The handler has run when it returns. What is sent to the process may take its time, and its
// order.
inline void send(int number) { ::raise(number); }

inline std::atomic<int> handled = 0;
inline void count_signal(int) { ++handled; }

/// As long as it lives, such signals that nobody receives are counted in `handled`.
struct counting {
    explicit counting(int number) : number_(number) {
        handled = 0;
        ::signal(number, count_signal);
    }
    ~counting() { ::signal(number_, SIG_DFL); }
    int number_;
};

} // namespace weft::test
