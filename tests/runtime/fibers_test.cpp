#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
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

// Waits at the lower end of so many pages.
template <std::size_t Pages> [[gnu::noinline]] void wait_far_below(void const* object) {
    std::array<std::byte volatile, Pages * detail::fiber::page> between;
    between[0] = std::byte(1);
    detail::parking wait("a test");
    if (wait.suspend_before_use_of(object) == detail::wake_reason::cancelled) detail::throw_cancelled(wait.owner());
}

// Of a task in that wait: what it says, and what is so.
struct page_distance {
    unsigned told = 0;
    std::uintptr_t real = 0;
};
page_distance distance_in(void (*wait)(void const*), void const* elsewhere) {
    page_distance found;
    detail::fiber* waiting = nullptr;
    void const* object = elsewhere;
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            char const here = 0;
            waiting = detail::current_fiber();
            if (object == nullptr) object = &here;
            try {
                wait(object);
            } catch (cancelled const&) {
                CHECK(unsigned(waiting->pages_up) == 0);
                throw;
            }
        });
        wait_all_tasks_blocked();
        found = {waiting->pages_up, std::uintptr_t(object) / detail::fiber::page -
                                        std::uintptr_t(waiting->context) / detail::fiber::page};
        group.cancel();
    });
    return found;
}

} // namespace

TEST_SUITE("runtime.fibers") {
    TEST_CASE("while it waits a fiber tells how many pages up its stack lies what it needs next") {
#if defined(__SANITIZE_ADDRESS__)
        MESSAGE("locals may lie anywhere");
        return;
#endif
        run_sim(0, [] {
            for (auto* const wait : {wait_far_below<1>, wait_far_below<3>, wait_far_below<20>}) {
                page_distance const near = distance_in(wait, nullptr);
                CHECK(near.told > 0);
                CHECK(near.told <= near.real); // the switch may lie a page below the wait
                CHECK(near.told + 1 >= near.real);
            }
            CHECK(distance_in(wait_far_below<40>, nullptr).told == 0); // too far
            static char const global = 0;
            CHECK(distance_in(wait_far_below<1>, &global).told == 0);
        });
    }

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
