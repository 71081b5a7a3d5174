#include "lines.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/sync/portal.hpp>
#include <weft/sync/to_thread.hpp>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <future>
#include <initializer_list>
#include <thread>

#include <sched.h>

namespace bench {

namespace {

constexpr std::size_t calls = 50'000;
constexpr std::size_t posts = 1'000'000;
constexpr std::size_t at_once = 1000;

// With XCALL_PIN set the calls go from one core to the other; the process may use both.
bool const between_cores = std::getenv("XCALL_PIN") != nullptr;

void stay_on(std::initializer_list<int> cores) {
    if (!between_cores) return;
    ::cpu_set_t set;
    CPU_ZERO(&set);
    for (int const core : cores)
        CPU_SET(core, &set);
    ::sched_setaffinity(0, sizeof set, &set);
}

void call_from_outside(weft::blocking_portal& portal, std::size_t times) {
    std::vector<double> latencies(times);
    for (int pass = 0; pass < 2; ++pass)
        for (std::size_t i = 0; i < times; ++i) {
            double const start = now();
            portal.call([i] { return i; });
            latencies[i] = (now() - start) * 1e6;
        }
    std::sort(latencies.begin(), latencies.end());
    print("xcall_p50", latencies[times / 2], "us");
    print("xcall_p99", latencies[times * 99 / 100], "us");
}

double post_from_outside(weft::task_group& group, std::size_t times) {
    std::atomic<std::size_t> left = times;
    std::promise<void> done;
    double const start = now();
    for (std::size_t i = 0; i < times; ++i)
        group.start_soon([&] {
            if (left.fetch_sub(1, std::memory_order_relaxed) == 1) done.set_value(); // no data
        });
    done.get_future().get();
    return double(times) / (now() - start) / 1e6;
}

} // namespace

// An OS thread calls into the runtime and waits for the answer.
void xcall(settings const& with) {
    stay_on({0, 1});
    weft::run(with.runtime(), [&] {
        stay_on({0});
        weft::with_blocking_portal([&](weft::blocking_portal& portal) {
            std::thread outside([&] {
                stay_on({1});
                double const before = cpu_seconds();
                call_from_outside(portal, with.count(calls));
                print("xcall_cpu", (cpu_seconds() - before) * 1e6 / double(2 * with.count(calls)), "us");
                portal.stop();
            });
            portal.sleep_until_stopped();
            outside.join();
        });
    });
}

// An OS thread starts tasks and does not wait for them.
void xpost(settings const& with) {
    weft::run(with.runtime(), [&] {
        weft::event over;
        weft::with_task_group([&](weft::task_group& group) {
            std::thread outside([&] {
                std::vector<double> values;
                post_from_outside(group, with.count(posts));
                double const before = cpu_seconds();
                for (int i = 0; i < with.repetitions; ++i)
                    values.push_back(post_from_outside(group, with.count(posts)));
                double const cpu = cpu_seconds() - before;
                print("xpost", values, "M/s");
                print("xpost_cpu", cpu * 1e9 / double(with.repetitions) / double(with.count(posts)),
                      "ns");
                over.set();
            });
            over.wait();
            outside.join();
        });
    });
}

// A trivial function, in a thread of the pool.
void offload(settings const& with) {
    std::size_t const times = with.count(calls);
    repeat(with, "offload", "us", [&] {
        double const start = now();
        for (std::size_t i = 0; i < times; ++i)
            weft::to_thread::run_sync([i] { return i; });
        return (now() - start) * 1e6 / double(times);
    });
    repeat(with, "offload_1000_at_once", "us", [&] {
        double const start = now();
        for (std::size_t round = 0; round < times / at_once; ++round)
            weft::with_task_group([&](weft::task_group& group) {
                for (std::size_t i = 0; i < at_once; ++i)
                    group.start_soon([i] { weft::to_thread::run_sync([i] { return i; }); });
            });
        return (now() - start) * 1e6 / double(times);
    });
}

} // namespace bench
