#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdio>

using namespace weft;
using namespace weft::test;

namespace {

std::size_t resident_bytes() {
    long total = 0;
    long resident = 0;
    std::FILE* const statm = std::fopen("/proc/self/statm", "r");
    if (statm == nullptr || std::fscanf(statm, "%ld %ld", &total, &resident) != 2) resident = 0;
    if (statm != nullptr) std::fclose(statm);
    return std::size_t(resident) * 4096;
}

} // namespace

TEST_SUITE("runtime.fibers") {
    TEST_CASE("G3: 100,000 tasks that never wait need no more than a few stacks") {
        run({.workers = 2}, [] {
            std::atomic<int> ran{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 100'000; ++task)
                    group.start_soon([&] { ++ran; });
            });
            CHECK(ran == 100'000);
            CHECK(get_run_statistics().stacks_in_use < 1000);
        });
    }

    TEST_CASE("G3: 100,000 tasks wait at once, all wake, and their memory is given back") {
        int const count = 100'000 / slowdown / slowdown;
        std::size_t const before = resident_bytes();
        std::size_t during = 0;
        run({.workers = 2, .stack_size = 64 * 1024}, [&] {
            gate go;
            std::atomic<int> woken{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < count; ++task)
                    group.start_soon([&] {
                        go.wait();
                        ++woken;
                    });
                wait_all_tasks_blocked();
                during = resident_bytes();
                go.open();
            });
            CHECK(woken == count);
        });
        if (slowdown > 1) return; // sanitizers keep memory of their own
        CHECK(during > before + std::size_t(count) * 4096);
        CHECK(during < before + std::size_t(count) * 12'000);
        CHECK(resident_bytes() < before + (during - before) / 4); // control blocks stay, stacks go
    }

    TEST_CASE("G27: tasks that come and go use the same memory again") {
        auto const round = [] {
            run({.workers = 2}, [] {
                for (int time = 0; time < 200; ++time)
                    with_task_group([](task_group& group) {
                        for (int task = 0; task < 50; ++task)
                            group.start_soon([] { lowlevel::checkpoint(); });
                    });
            });
        };
        round();
        std::size_t const before = resident_bytes();
        for (int time = 0; time < 5; ++time)
            round();
        if (slowdown > 1) return; // as above
        CHECK(resident_bytes() < before + (4 << 20));
    }
}
