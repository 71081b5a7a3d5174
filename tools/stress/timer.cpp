#include "chaos.hpp"

#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <chrono>

namespace stress {

namespace {

using std::chrono::microseconds;
using weft::current_time;

// A wake-up that is lost shows as one that comes much too late, if something else moves the worker.
constexpr std::chrono::seconds much_too_late(10 * int(slowdown));

struct timekeeper {
    scope_register& scopes;
    random_source random;

    microseconds nap() { return microseconds(random.below(random.one_in(4) ? 20'000 : 1000)); }

    void sleep() {
        auto const until = current_time() + nap();
        random.one_in(2) ? weft::sleep_until(until) : weft::sleep(until - current_time());
        require(current_time() >= until, "a sleep is never too short");
        require(current_time() < until + much_too_late, "a sleep ends");
    }

    // The limit and what it limits come at about the same time.
    void race_with_sleep() {
        auto const limit = nap(), needed = limit + microseconds(random.below(20)) - microseconds(10);
        auto const start = current_time();
        bool const finished = weft::move_on_after(limit, [&] { weft::sleep(needed); });
        require(current_time() - start >= (finished ? needed : limit),
                "what ended has lasted, or its limit has passed");
    }

    void fail() {
        auto const limit = nap();
        auto const start = current_time();
        bool timed_out = false;
        try {
            weft::fail_after(limit, [&] {
                waiting_cleanup const cleanup(random);
                weft::sleep_forever();
            });
        } catch (weft::timeout_error const&) {
            timed_out = true;
        }
        require(timed_out && current_time() - start >= limit, "fail_after() fails after its limit");
    }

    // The inner limit never fires, is armed and taken away again; the outer one must still work.
    void nested() {
        auto const limit = nap();
        auto const start = current_time();
        bool const finished = weft::move_on_after(limit, [&] {
            for (;;)
                weft::move_on_after(limit * 3 + microseconds(1000), [&] {
                    weft::sleep(microseconds(random.below(100)));
                });
        });
        require(!finished && current_time() - start >= limit, "the outer limit reaches inner scopes");
    }

    // Others move this deadline about, but never far.
    void moved_deadline() {
        auto const scope = std::make_shared<weft::cancel_scope>(
            weft::cancel_scope_options{.deadline = current_time() + nap()});
        scope_register::entry const entry(scopes, scope);
        require(!scope->run([] { weft::sleep_forever(); }), "a moved deadline comes");
        require(scope->cancel_called() && current_time() >= scope->deadline() - much_too_late,
                "a deadline that has passed counts as a cancel");
    }

    void go(unsigned steps) {
        for (unsigned i = 0; i < steps; ++i) {
            switch (random.below(5)) {
            case 0:
                race_with_sleep();
                break;
            case 1:
                fail();
                break;
            case 2:
                nested();
                break;
            case 3:
                moved_deadline();
                break;
            default:
                sleep();
            }
            progress();
        }
    }
};

void move_deadline(scope_register& scopes, random_source& random) {
    if (auto const scope = scopes.pick(random))
        scope->set_deadline(current_time() + microseconds(random.below(3000)) - microseconds(500));
}

} // namespace

void timer_storm(trial& now) {
    scope_register scopes;
    auto const tasks = now.random.between(1, 2000 / slowdown);
    auto const steps = unsigned(now.random.between(1, 20));
    std::atomic<std::uint64_t> left = tasks;
    outside_threads const threads(now.threads(2), now.random,
                                  [&](random_source& random) { move_deadline(scopes, random); });
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < tasks; ++i)
                group.start_soon({.stack_size = 64 * 1024 * std::size_t(slowdown)},
                                 [&, random = now.random.split()] {
                                     timekeeper{scopes, random}.go(steps);
                                     --left;
                                 });
            group.start_soon([&, random = now.random.split()]() mutable {
                while (left > 0) {
                    move_deadline(scopes, random);
                    weft::sleep(microseconds(random.below(100)));
                }
            });
        });
    });
}

} // namespace stress
