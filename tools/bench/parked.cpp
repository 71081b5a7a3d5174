#include "lines.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>

#include <atomic>
#include <chrono>

namespace bench {

namespace {

constexpr std::size_t small_stack = 64 * 1024;

struct memory {
    double resident = status_bytes("VmRSS");
    double page_tables = status_bytes("VmPTE");
};

void print_memory(std::string const& name, std::size_t tasks, memory const& before) {
    memory const after;
    print(name + "_rss", (after.resident - before.resident) / double(tasks), "B/task");
    print(name + "_page_tables", (after.page_tables - before.page_tables) / double(tasks), "B/task");
}

void park_and_wake(std::string const& name, std::size_t tasks) {
    memory const before;
    weft::event wake;
    std::atomic<std::size_t> up = 0;
    double woken_at = 0;
    double const start = now();
    weft::with_task_group([&](weft::task_group& group) {
        for (std::size_t i = 0; i < tasks; ++i)
            group.start_soon({.stack_size = small_stack}, [&] {
                up.fetch_add(1, std::memory_order_relaxed); // a count
                wake.wait();
            });
        while (up.load(std::memory_order_relaxed) < tasks)
            weft::lowlevel::checkpoint();
        double const spawned_at = now();
        weft::sleep(std::chrono::milliseconds(50));
        print_memory(name, tasks, before);
        print(name + "_spawn", (spawned_at - start) * 1e3, "ms");
        woken_at = now();
        wake.set();
    });
    print(name + "_wake_join", (now() - woken_at) * 1e3, "ms");
}

} // namespace

// Once, in a process of its own: the second time the stacks would be there.
void parked(settings const& with) {
    std::size_t const tasks = with.count(1'000'000);
    weft::run(with.runtime(),
              [tasks] { park_and_wake("parked_" + std::to_string(tasks), tasks); });
}

// With one worker: others would start them.
void parked_never_started(settings const& with) {
    std::size_t const tasks = with.count(1'000'000);
    weft::run({.workers = 1}, [tasks] {
        memory const before;
        weft::with_task_group([&](weft::task_group& group) {
            for (std::size_t i = 0; i < tasks; ++i)
                group.start_soon({.stack_size = small_stack}, [] {});
            print_memory("parked_never_started_" + std::to_string(tasks), tasks, before);
        });
    });
}

} // namespace bench
