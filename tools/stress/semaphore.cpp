#include "chaos.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/semaphore.hpp>

#include <chrono>

namespace stress {

namespace {

using std::chrono::microseconds;

/// A semaphore and what must be true of it.
struct permits {
    permits(std::uint64_t initial, bool fast)
        : initial_value(initial), of(initial, {.max_value = initial, .fast_acquire = fast}) {}

    // May be cancelled at its wait: the permit goes back all the same.
    void use(random_source& random) {
        struct hold {
            permits& of;
            explicit hold(permits& held) : of(held) {
                require(++of.inside <= of.initial_value, "no more permits are out than there are");
            }
            ~hold() {
                --of.inside;
                of.of.release();
            }
        } const held(*this);
        if (random.one_in(2)) wait_somehow(random);
        require(of.value() <= initial_value, "a semaphore is never above its maximum");
        progress();
    }

    std::uint64_t const initial_value;
    std::atomic<std::uint64_t> inside = 0;
    weft::semaphore of;
};

void acquire_somehow(permits& from, random_source& random) {
    switch (random.below(4)) {
    case 0:
        if (from.of.try_acquire()) from.use(random);
        break;
    case 1:
        weft::move_on_after(microseconds(random.below(200)), [&] {
            from.of.acquire();
            from.use(random);
        });
        break;
    default:
        from.of.acquire();
        from.use(random);
    }
}

// What OS threads release, tasks acquire; neither more nor less.
void released_outside(random_source random) {
    weft::semaphore items(0);
    std::uint64_t const count = random.between(1, 50);
    std::atomic<std::uint64_t> got = 0;
    std::thread releaser([&items, count] {
        for (std::uint64_t i = 0; i < count; ++i)
            items.release();
    });
    weft::shielded([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < count; ++i)
                group.start_soon([&, own = random.split()]() mutable {
                    while (!weft::move_on_after(microseconds(own.below(300)), [&] {
                        items.acquire();
                        ++got;
                    })) {}
                });
        });
    });
    releaser.join();
    require(got == count && items.value() == 0, "each release is one acquire");
    progress();
}

} // namespace

void semaphore_storm(trial& now) {
    permits shared(now.random.between(1, 8), now.random.one_in(2));
    auto const tasks = now.random.between(1, 200 / slowdown);
    auto const times = now.random.between(1, 60);
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < tasks; ++i)
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t step = 0; step < times; ++step)
                        acquire_somehow(shared, random);
                    if (now.may_use_threads() && random.one_in(16)) released_outside(random.split());
                });
        });
    });
    require(shared.of.value() == shared.initial_value && shared.of.statistics().tasks_waiting == 0,
            "all permits come back");
}

} // namespace stress
