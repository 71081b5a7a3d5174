#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>

namespace weft::detail {

/// A look after the only CPU was left to who else is ready to run there. Who is waited for may do its part in
/// between, and then nobody has to sleep and to be woken. Where that took longer than what it found is worth,
/// others are at work, for whose time slices we would wait: so it is not tried again for a multiple of the time.
///
/// Threads  one
class yielding_look {
public:
    /// look() gives how many things it found that were waited for. True: at least one.
    template <class Look> bool look_for(Look&& look) noexcept {
        std::int64_t const start = now();
        if (start < not_before_) return false;
        leave_cpu();
        std::int64_t const found = look();
        std::int64_t const end = now();
        std::int64_t const took = std::min(end - start, longest_that_counts);
        if (found == 0)
            not_before_ = end + times_after_nothing * took;
        else if (took > worth_of_first + worth_of_each * found)
            not_before_ = end + times_after_little * took;
        return found != 0;
    }
    static std::int64_t now() noexcept {
        return std::chrono::steady_clock::now().time_since_epoch().count();
    }

private:
    static constexpr std::int64_t worth_of_first = 50'000; // ns: a sleeper would have been woken before
    static constexpr std::int64_t worth_of_each = 200;     // ns, as if it were a small task
    static constexpr std::int64_t longest_that_counts = 100'000'000; // ns: the program was stopped, or so
    static constexpr std::int64_t times_after_nothing = 100;
    static constexpr std::int64_t times_after_little = 30;
    static void leave_cpu() noexcept;

    std::int64_t not_before_ = 0;
};

/// How long an OS thread looks for something before it sleeps. To wake a sleeper takes 30 us where cores
/// are halted, to see a change of a word 0.1 us: so it looks for as long as that, but only while waits
/// turn out to be so short. On a single CPU, where that would keep away who is waited for, it leaves the CPU once.
///
/// Threads  one
class patience {
public:
    static constexpr std::int64_t longest = 50'000; // ns
    static constexpr std::int64_t shortest = 1'000;
    static constexpr std::int64_t for_ever = std::numeric_limits<std::int64_t>::max();

    /// True: look() said so. False: sleep now, and then learn() how long it took from the beginning. Who may wait for
    /// no longer than that looks once.
    template <class Look> bool look_for(Look&& look, std::int64_t at_most = for_ever) noexcept {
        if (look()) return true;
        if (at_most <= longest) return false;
        if (!has_company()) // others may keep the CPU for longer than a short wait
            return at_most > longest_of_others && after_others_.look_for([&look] { return look() ? 1 : 0; });
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
    static std::int64_t now() noexcept { return yielding_look::now(); }

private:
    static constexpr int looks_between_clock_reads = 16;
    static constexpr std::int64_t longest_of_others = 1'000'000'000; // ns, for their time slices
    static bool has_company() noexcept; // of other CPUs
    static void pause() noexcept;

    std::int64_t time_ = longest;
    yielding_look after_others_;
};

} // namespace weft::detail
