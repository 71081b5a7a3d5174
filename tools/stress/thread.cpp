#include "chaos.hpp"

#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/from_thread.hpp>
#include <weft/sync/to_thread.hpp>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>

namespace stress {

namespace {

using std::chrono::microseconds;

struct planned : std::runtime_error {
    planned() : std::runtime_error("planned") {}
};

/// What abandoned calls still touch.
struct shared_state {
    std::atomic<std::uint64_t> inside = 0;
    std::atomic<std::uint64_t> running = 0; // abandoned ones included
    std::uint64_t tokens = 0;

    struct visit {
        shared_state& of;
        explicit visit(shared_state& in) : of(in) {
            require(++of.inside <= of.tokens, "no more threads run than there are tokens");
        }
        ~visit() { --of.inside; }
    };
};

std::uint64_t in_thread(shared_state& state, random_source random, std::uint64_t value) {
    shared_state::visit const here(state);
    spin(random.below(20'000));
    switch (random.below(6)) {
    case 0:
        throw planned();
    case 1:
        weft::from_thread::check_cancelled();
        break;
    case 2:
        require(weft::from_thread::run([&] {
                    wait_somehow(random);
                    return value;
                }) == value,
                "a thread gets what its task gave");
        break;
    case 3:
        require(weft::from_thread::run_sync([&] { return value; }) == value,
                "a thread gets what its task gave");
        break;
    default:
        break;
    }
    return value;
}

void call_once(shared_state& state, weft::capacity_limiter& limiter, random_source& random) {
    std::uint64_t const value = random.below(1'000'000);
    bool const abandon = random.one_in(3);
    ++state.running;
    auto const counted = std::shared_ptr<void>(nullptr, [&state](void*) { --state.running; });
    auto const call = [&] {
        require(weft::to_thread::run_sync({.abandon_on_cancel = abandon, .limiter = &limiter},
                                          [&state, counted, own = random.split(), value] {
                                              return in_thread(state, own, value);
                                          }) == value,
                "a task gets what its thread gave");
    };
    try {
        if (random.one_in(2))
            weft::move_on_after(microseconds(random.below(200)), call);
        else
            call();
    } catch (planned const&) {
    } catch (weft::run_finished_error const&) {
        require(abandon, "only an abandoned call loses its task");
    }
    progress();
}

} // namespace

void thread_storm(trial& now) {
    shared_state state;
    state.tokens = now.random.between(1, 6);
    weft::capacity_limiter limiter(double(state.tokens)); // outlives the abandoned calls
    auto const tasks = now.random.between(1, 30);
    auto const times = now.random.between(1, 200 / slowdown);
    weft::run(now.options(), [&] { // an abandoned call's task may still sleep at its end
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < tasks; ++i)
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t step = 0; step < times; ++step)
                        call_once(state, limiter, random);
                });
        });
    });
    while (state.running != 0 || limiter.borrowed_tokens() != 0) // abandoned threads, on their own
        std::this_thread::yield();
}

} // namespace stress
