#include "lines.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/event.hpp>

#include <atomic>

namespace bench {

enum class until { set_returns, last_waiter_has_run };

// One set(), per waiter; the end of the tasks is not in the figure.
static void broadcast(settings const& with, char const* line, std::size_t waiters, until end) {
    repeat(with, line, "ns", [waiters, end] {
        weft::event start, gone;
        std::atomic<std::size_t> up = 0, woken = 0;
        double set_at = 0, returned_at = 0, last_at = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (std::size_t i = 0; i < waiters; ++i)
                group.start_soon([&] {
                    ++up;
                    start.wait();
                    if (++woken != waiters) return gone.wait();
                    last_at = now();
                    gone.set();
                });
            while (up < waiters)
                weft::lowlevel::checkpoint();
            set_at = now();
            start.set();
            returned_at = now();
        });
        double const end_at = end == until::set_returns ? returned_at : last_at;
        return (end_at - set_at) * 1e9 / double(waiters);
    });
}

void event_broadcast(settings const& with) {
    broadcast(with, "event_broadcast", with.count(10'000), until::last_waiter_has_run);
}

void event_broadcast_100000(settings const& with) {
    broadcast(with, "event_broadcast_100000", with.count(100'000), until::last_waiter_has_run);
}

void event_set_100000(settings const& with) {
    broadcast(with, "event_set_100000", with.count(100'000), until::set_returns);
}

} // namespace bench
