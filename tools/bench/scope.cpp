#include "lines.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>

#include <atomic>

namespace bench {

void scope_enter_exit(settings const& with) {
    std::size_t const times = with.count(10'000'000);
    repeat(with, "scope_enter_exit", "ns", [times] {
        double const start = now();
        for (std::size_t i = 0; i < times; ++i)
            weft::cancel_scope().run([] { asm volatile("" ::: "memory"); });
        return (now() - start) * 1e9 / double(times);
    });
}

// What each blocking-style call looks at before anything else, and one that has nothing to wait for.
void entry_check(settings const& with) {
    std::size_t const times = with.count(10'000'000);
    weft::event ready;
    ready.set();
    auto const line = [&](char const* name, auto const& call) {
        repeat(with, name, "ns", [&] {
            double const start = now();
            for (std::size_t i = 0; i < times; ++i)
                call();
            return (now() - start) * 1e9 / double(times);
        });
    };
    line("entry_check", [] { weft::lowlevel::checkpoint_if_cancelled(); });
    line("wait_ready", [&] { ready.wait(); });
}

// The call that cancels is timed by itself: it reaches every task before it returns. Then, per task,
// what it takes until all of them have unwound and the group is left.
void cancel_parked(settings const& with) {
    std::size_t const tasks = with.count(100'000);
    std::vector<double> calls, joins;
    repeat_all(with, with.repetitions, [&](bool record) {
        double cancelled_at = 0, called = 0;
        std::atomic<std::size_t> parked = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (std::size_t i = 0; i < tasks; ++i)
                group.start_soon([&] {
                    ++parked;
                    weft::sleep_forever();
                });
            while (parked < tasks)
                weft::lowlevel::checkpoint();
            weft::sleep(std::chrono::milliseconds(10)); // the last ones are still on their way
            cancelled_at = now();
            group.cancel();
            called = now();
        });
        if (!record) return;
        calls.push_back((called - cancelled_at) * 1e9 / double(tasks));
        joins.push_back((now() - called) * 1e9 / double(tasks));
    });
    print("cancel_parked", calls, "ns");
    print("cancel_parked_join", joins, "ns");
}

} // namespace bench
