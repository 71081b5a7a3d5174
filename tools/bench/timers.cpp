#include "lines.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>

#include <chrono>

namespace bench {

using namespace std::chrono_literals;

namespace {

void sleep_all(std::size_t sleepers, random_source& random) {
    weft::with_task_group([&](weft::task_group& group) {
        for (std::size_t i = 0; i < sleepers; ++i) {
            auto const delay = std::chrono::milliseconds(1 + random() % 1000);
            group.start_soon({.stack_size = 64 * 1024}, [delay] { weft::sleep(delay); });
        }
    });
}

} // namespace

void timers(settings const& with) {
    constexpr double ideal = 1000; // ms: the longest sleep
    constexpr int rounds = 3;      // as the peers: each takes seconds
    random_source random{42};
    std::vector<double> wall, cpu;
    repeat_all(with, rounds, [&](bool record) {
        double const cpu_before = cpu_seconds(), start = now();
        sleep_all(with.count(1'000'000), random);
        if (!record) return;
        wall.push_back((now() - start) * 1e3 - ideal);
        cpu.push_back(cpu_seconds() - cpu_before);
    });
    print("timers_wall_over_ideal", wall, "ms");
    print("timers_cpu", cpu, "s");
    print_peak_rss("timers_peak_rss");
}

namespace {

template <class Ready>
void limit_ready_call(settings const& with, std::string const& name, Ready const& ready) {
    std::size_t const times = with.count(1'000'000);
    repeat(with, name, "ns", [&] {
        double const start = now();
        for (std::size_t i = 0; i < times; ++i)
            weft::fail_after(1s, ready);
        return (now() - start) * 1e9 / double(times);
    });
}

} // namespace

void timeout_ready(settings const& with) {
    weft::event ready;
    ready.set();
    limit_ready_call(with, "timeout_ready", [&] { ready.wait(); });
}

// This call looks at the clock's limits: the timer is set and taken away again.
void timeout_armed(settings const& with) {
    limit_ready_call(with, "timeout_armed", [] { weft::lowlevel::checkpoint_if_cancelled(); });
}

} // namespace bench
