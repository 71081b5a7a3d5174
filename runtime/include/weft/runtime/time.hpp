#pragma once

#include <chrono>

namespace weft {

using duration = std::chrono::nanoseconds;

/// The clock of deadlines and sleeps: monotonic, the same for all workers of a run, and virtual under
/// the "sim" backend, where it stands still while anything can run.
///
/// Threads  any; outside a run it is the system's monotonic clock
struct clock {
    using duration = weft::duration;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<clock, duration>;
    static constexpr bool is_steady = true;

    static time_point now() noexcept;
};

/// A deadline: time_point::max() is never, time_point::min() is already.
using time_point = std::chrono::time_point<clock, duration>;

/// The time now, by the clock of the current run. Never suspends. Any thread. Source: AnyIO current_time
time_point current_time();

/// Lets at least this much time pass. Zero or less lets others run once; duration::max() is for ever.
///
/// Cancellation  a cancellation point, also when nothing is waited for; cancelled, it did nothing
/// Errors        no_event_loop_error outside a run
/// Source        AnyIO sleep
void sleep(duration);

/// Sleeps until the clock shows this time; one that has passed lets others run once. Cancellation and
/// errors as sleep(). Source: AnyIO sleep_until
void sleep_until(time_point);

/// Waits until it is cancelled. Source: AnyIO sleep_forever
[[noreturn]] void sleep_forever();

namespace detail {
/// The point that lies this far ahead; beyond the end of time is never.
time_point time_after(time_point from, duration delay) noexcept;
} // namespace detail

} // namespace weft
