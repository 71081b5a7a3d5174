#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace weft::detail {

/// How long an OS thread looks for something before it sleeps. To wake a sleeper takes 30 us where cores
/// are halted, to see a change of a word 0.1 us: so it looks for as long as that, but only while waits
/// turn out to be so short. Never on a single CPU, where it would keep away who is waited for.
///
/// Threads  one
class patience {
public:
    static constexpr std::int64_t longest = 50'000; // ns
    static constexpr std::int64_t shortest = 1'000;

    /// True: look() said so. False: sleep now, and then learn() how long it took from the beginning.
    template <class Look> bool look_for(Look&& look) const {
        if (look()) return true;
        if (!has_company()) return false;
        std::int64_t const until = now() + time_;
        do {
            for (int number = 0; number < looks_between_clock_reads; ++number) {
                if (look()) return true;
                pause();
            }
        } while (now() < until);
        return false;
    }
    void learn(std::int64_t waited) noexcept {
        time_ = waited < longest ? std::min(2 * time_, longest) : std::max(time_ / 2, shortest);
    }
    static std::int64_t now() noexcept {
        return std::chrono::steady_clock::now().time_since_epoch().count();
    }

private:
    static constexpr int looks_between_clock_reads = 16;
    static bool has_company() noexcept; // of other CPUs
    static void pause() noexcept;

    std::int64_t time_ = longest;
};

} // namespace weft::detail
