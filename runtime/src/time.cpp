#include <weft/runtime/time.hpp>

#include "runtime.hpp"
#include "task.hpp"

#include <weft/runtime/detail/parking.hpp>

namespace weft {

time_point clock::now() noexcept {
    detail::worker const* const here = detail::this_worker();
    return here != nullptr ? here->run_of.now() : detail::runtime::real_now();
}

time_point current_time() {
    return clock::now();
}

static void sleep_in(char const* call, time_point when) {
    if (when != time_point::max() && when <= current_time()) return detail::checkpoint_in(call);
    for (;;) { // a timer may be early by what the clock's readers differ
        detail::fiber& self = detail::enter_blocking_call(call);
        detail::parking wait(call);
        if (wait.suspend_until(when) == detail::wake_reason::cancelled) detail::throw_cancelled(self);
        if (current_time() >= when) return;
    }
}

void sleep(duration delay) {
    if (delay <= duration::zero()) return detail::checkpoint_in("sleep");
    sleep_in("sleep", detail::time_after(current_time(), delay));
}

void sleep_until(time_point when) {
    sleep_in("sleep_until", when);
}

void sleep_forever() {
    for (;;)
        sleep_in("sleep_forever", time_point::max());
}

namespace detail {

time_point time_after(time_point from, duration delay) noexcept {
    if (delay > duration::zero() && from > time_point::max() - delay) return time_point::max();
    if (delay < duration::zero() && from < time_point::min() - delay) return time_point::min();
    return from + delay;
}

} // namespace detail
} // namespace weft
