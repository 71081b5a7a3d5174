#include "chaos.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/sync/barrier.hpp>
#include <weft/sync/latch.hpp>
#include <weft/sync/wait_group.hpp>

#include <chrono>

// Latches, barriers and wait groups: where tasks meet.
namespace stress {

namespace {

using std::chrono::microseconds;

void at_a_latch(random_source random) {
    auto const tasks = std::ptrdiff_t(random.between(1, 20));
    weft::latch gate(tasks);
    std::atomic<std::ptrdiff_t> arrived = 0;
    weft::with_task_group([&](weft::task_group& group) {
        for (std::ptrdiff_t i = 0; i < tasks; ++i)
            group.start_soon([&, own = random.split()]() mutable {
                if (own.one_in(2)) wait_somehow(own);
                ++arrived;
                gate.count_down();
                if (own.one_in(3))
                    weft::move_on_after(microseconds(own.below(100)), [&] { gate.wait(); });
                else
                    gate.wait();
                bool const open = gate.try_wait(); // first: the others go on arriving
                require(!open || arrived == tasks, "a latch opens when all have arrived");
            });
        gate.wait();
        require(arrived == tasks && gate.try_wait(), "a latch opens when all have arrived");
    });
    progress();
}

// Every phase ends when all who take part have arrived; those who leave do not hold it up.
void at_a_barrier(random_source random) {
    auto const tasks = random.between(1, 12);
    auto const phases = random.between(1, 12);
    std::atomic<std::uint64_t> completed = 0, arrived = 0;
    auto const on_completion = [&]() noexcept { ++completed; };
    weft::barrier<decltype(on_completion)> meeting(std::ptrdiff_t(tasks), on_completion);
    weft::with_task_group([&](weft::task_group& group) {
        for (std::uint64_t i = 0; i < tasks; ++i)
            group.start_soon([&, own = random.split()]() mutable {
                std::uint64_t const mine = own.one_in(4) ? own.below(phases) : phases;
                for (std::uint64_t phase = 0; phase < mine; ++phase) {
                    require(completed == phase, "nobody is ahead of a barrier");
                    if (own.one_in(3)) wait_somehow(own);
                    ++arrived;
                    if (own.one_in(2)) {
                        meeting.arrive_and_wait();
                    } else {
                        auto ticket = meeting.arrive();
                        if (own.one_in(2)) spin(own.below(2000));
                        meeting.wait(std::move(ticket));
                    }
                    require(completed > phase, "nobody passes a barrier before its completion");
                }
                if (mine != phases) meeting.arrive_and_drop();
            });
    });
    require(completed <= phases, "a phase is completed once");
    progress();
}

void in_a_wait_group(random_source random) {
    weft::wait_group pending;
    std::atomic<std::uint64_t> done = 0;
    auto const tasks = random.between(1, 30);
    weft::with_task_group([&](weft::task_group& group) {
        pending.add(tasks);
        for (std::uint64_t i = 0; i < tasks; ++i)
            group.start_soon([&, own = random.split()]() mutable {
                if (own.one_in(2)) wait_somehow(own);
                if (own.one_in(4)) { // one more, before its own end
                    pending.add();
                    group.start_soon([&] {
                        ++done;
                        pending.done();
                    });
                } else if (own.one_in(8)) {
                    weft::move_on_after(microseconds(own.below(50)), [&] { pending.wait(); });
                }
                ++done;
                pending.done();
            });
        pending.wait();
        require(done >= tasks, "a wait group lets nobody through before all are done");
    });
    pending.wait();
    progress();
}

} // namespace

void meeting_storm(trial& now) {
    auto const hosts = now.random.between(1, 40 / slowdown + 1);
    auto const times = now.random.between(1, 20);
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t host = 0; host < hosts; ++host)
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t i = 0; i < times; ++i)
                        switch (random.below(3)) {
                        case 0: at_a_latch(random.split()); break;
                        case 1: at_a_barrier(random.split()); break;
                        default: in_a_wait_group(random.split());
                        }
                });
        });
    });
}

} // namespace stress
