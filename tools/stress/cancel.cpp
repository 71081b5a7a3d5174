#include "chaos.hpp"

#include <weft/runtime/context_var.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <chrono>
#include <sstream>
#include <string>

namespace stress {

namespace {

using std::chrono::microseconds;

struct storm_of_cancels {
    scope_register scopes;
    bool toggling = false;  // shields change while the bodies run
    bool deadlines = false; // deadlines change as well
    std::atomic<bool> over = false;

    // Whose stacks are looked at is woken, cancelled and timed out meanwhile.
    static void look_at_all() {
        std::ostringstream text;
        weft::dump_tasks(text);
        require(text.str().find(" tasks\n") != std::string::npos,
                "a dump says how many tasks there are");
    }

    // No progress: a victim that hangs may be struck for ever.
    void strike(random_source& random) {
        if (random.one_in(500)) return look_at_all();
        auto const target = scopes.pick(random);
        if (target == nullptr) return;
        switch (random.below(6)) {
        case 0:
            if (toggling) target->set_shield(random.one_in(2));
            return;
        case 1:
            if (deadlines) target->set_deadline(weft::current_time() + microseconds(random.below(2000)));
            return;
        case 2:
            require(!target->cancelled_caught() || target->cancel_called(),
                    "only what was cancelled is caught");
            return;
        default:
            target->cancel("struck");
            require(target->cancel_called(), "a cancelled scope says so");
        }
    }
};

weft::run_var<std::string> last_word("last word", "none");

struct victim {
    storm_of_cancels& storm;
    random_source random;

    void change_last_word() {
        if (random.one_in(2)) last_word.set(std::string(random.below(100), 'x'));
        require(last_word.get().find_first_not_of("none x") == std::string::npos,
                "a run variable is what somebody has set");
    }

    // Others may be busy all the time: this ends, quiet or not.
    void wait_for_quiet() {
        weft::move_on_after(microseconds(random.below(500)),
                            [] { weft::wait_all_tasks_blocked(); });
    }

    // What is cancelled stays so: swallowing it once does not help.
    void swallow_and_go_on() {
        try {
            wait_somehow(random);
        } catch (weft::cancelled const&) {
            wait_shielded(random);
            if (!storm.toggling) require_cancelled_again();
            throw;
        }
    }

    void require_cancelled_again() {
        bool again = false;
        try {
            weft::lowlevel::checkpoint();
        } catch (weft::cancelled const&) {
            again = true;
        }
        require(again, "every cancellation point of a cancelled scope throws");
    }

    void work_shielded() {
        bool finished = false;
        weft::shielded([&] {
            for (std::uint64_t i = random.below(4); i > 0; --i)
                wait_somehow(random);
            finished = true;
        });
        require(finished, "a shielded body is not cut short");
    }

    void work_in_group(unsigned depth) {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = random.below(4); i > 0; --i)
                group.start_soon([child = victim{storm, random.split()}, depth]() mutable {
                    child.work(depth);
                });
            if (random.one_in(4)) group.cancel("the host changed its mind");
            wait_somehow(random);
        });
    }

    void work(unsigned depth) {
        token const held(depth);
        waiting_cleanup const cleanup(random);
        if (random.one_in(10)) change_last_word();
        if (random.one_in(40)) wait_for_quiet();
        for (std::uint64_t i = random.below(6); i > 0; --i) {
            switch (random.below(5)) {
            case 0:
                swallow_and_go_on();
                break;
            case 1:
                work_shielded();
                break;
            case 2:
                if (depth > 0) work_in_group(depth - 1);
                break;
            case 3:
                if (depth > 0) in_scope(depth - 1);
                break;
            default:
                wait_somehow(random);
            }
        }
    }

    // Nobody has to strike: a deadline is there for those that would wait for ever.
    void in_scope(unsigned depth) {
        weft::cancel_scope_options options{.shield = random.one_in(4)};
        bool const forever = random.one_in(4);
        if (forever || random.one_in(3))
            options.deadline = weft::current_time() + microseconds(random.below(3000));
        auto const scope = std::make_shared<weft::cancel_scope>(options);
        scope_register::entry const entry(storm.scopes, scope);
        bool reached_end = false;
        bool const finished = scope->run([&] {
            work(depth);
            if (forever) weft::sleep_forever();
            reached_end = true;
        });
        require(finished == reached_end, "run() says whether the body was cut short");
        require(finished != scope->cancelled_caught(), "a scope that was cut short has caught it");
        require(finished || scope->cancel_called(), "a scope is cut short by its own cancellation only");
        progress();
    }
};

void live(storm_of_cancels& storm, random_source random, unsigned times, unsigned depth) {
    victim self{storm, random};
    try {
        for (unsigned i = 0; i < times; ++i)
            self.in_scope(depth);
    } catch (weft::cancelled const&) {
        violation("a cancellation stays inside the scope that was cancelled");
    }
}

} // namespace

void cancel_storm(trial& now) {
    storm_of_cancels storm;
    storm.toggling = now.random.one_in(2);
    storm.deadlines = now.random.one_in(2);
    auto const victims = now.random.between(1, 200 / slowdown);
    auto const times = unsigned(now.random.between(5, 30));
    auto const depth = unsigned(now.random.between(0, 4));
    outside_threads const threads(now.threads(2), now.random,
                                  [&](random_source& random) { storm.strike(random); });
    now.run([&] {
        std::atomic<std::uint64_t> left = victims;
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < victims; ++i)
                group.start_soon([&storm, &left, random = now.random.split(), times, depth] {
                    live(storm, random, times, depth);
                    if (--left == 0) storm.over = true;
                });
            for (std::uint64_t i = now.random.between(1, 4); i > 0; --i)
                group.start_soon([&storm, random = now.random.split()]() mutable {
                    while (!storm.over) {
                        storm.strike(random);
                        random.one_in(8) ? weft::sleep(microseconds(50)) : weft::lowlevel::checkpoint();
                    }
                });
        });
    });
}

} // namespace stress
