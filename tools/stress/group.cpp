#include "chaos.hpp"

#include <weft/runtime/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <chrono>
#include <stdexcept>
#include <string>

namespace stress {

namespace {

using std::chrono::microseconds;

/// Thrown on purpose. Each one must be reported to exactly one handler.
struct planned_failure : std::runtime_error {
    planned_failure() : std::runtime_error("planned") {}
};

struct tally {
    std::atomic<std::int64_t> thrown = 0;
    std::atomic<std::int64_t> reported = 0;
    std::atomic<std::uint64_t> tasks_left = 0;

    [[noreturn]] void fail() {
        ++thrown;
        throw planned_failure();
    }
};

std::int64_t count_failures(weft::exception_group const& group) {
    std::int64_t count = 0;
    group.handle([&](planned_failure const&) { ++count; });
    return count; // any other leaf has left as a group of its own
}

/// One group with its children; below them are others.
class node {
public:
    node(tally& in, random_source random, unsigned depth)
        : tally_(in), random_(random), depth_(depth) {}

    void run() {
        try {
            weft::with_task_group([this](weft::task_group& group) { body(group); });
        } catch (weft::exception_group const& failed) {
            tally_.reported += count_failures(failed);
        } catch (weft::cancelled const&) {
            require(living_ == 0, "a cancelled group, too, waits for its children");
            throw;
        }
        require(living_ == 0, "a group ends after its children");
        progress();
    }

private:
    /// Counts a child while it lives, whichever way it ends.
    struct life {
        explicit life(std::atomic<int>& counter) : counter_(counter) { ++counter_; }
        ~life() { --counter_; }
        std::atomic<int>& counter_;
    };

    void body(weft::task_group& group) {
        waiting_cleanup const cleanup(random_);
        for (std::uint64_t i = random_.below(5); i > 0; --i) {
            if (tally_.tasks_left.fetch_sub(1) > std::uint64_t(1) << 60) { // used up
                tally_.tasks_left = 0;
                return;
            }
            add(group);
        }
        if (random_.one_in(20)) tally_.fail();
        if (random_.one_in(10)) group.cancel("at random");
        if (random_.one_in(4)) wait_somehow(random_);
    }

    void add(weft::task_group& group) {
        switch (random_.below(7)) {
        case 0:
            return start_ready(group);
        case 1:
            return start_within_limit(group);
        case 2:
            return create_and_cancel(group);
        case 3:
            return create_and_wait(group);
        case 4: return create_and_watch(group);
        default:
            group.start_soon([this, random = random_.split()]() mutable { child(group_depth(), random); });
        }
    }

    unsigned group_depth() const { return depth_ == 0 ? 0 : depth_ - 1; }

    void child(unsigned depth, random_source random) {
        life const counted(living_);
        waiting_cleanup const cleanup(random);
        wait_somehow(random);
        if (random.one_in(16)) tally_.fail();
        if (depth > 0) node(tally_, random.split(), depth).run();
        if (random.one_in(4)) wait_somehow(random);
    }

    // Says that it is ready, or fails before, or afterwards, or forgets to.
    void ready_child(weft::task_status<token>& status, random_source random, token const& value) {
        life const counted(living_);
        waiting_cleanup const cleanup(random);
        if (random.one_in(2)) wait_somehow(random);
        if (random.one_in(8)) tally_.fail();
        if (random.one_in(8)) return;
        status.started(value);
        if (random.one_in(8)) tally_.fail();
        child(group_depth(), random);
    }

    void start_ready(weft::task_group& group) {
        auto const expected = random_();
        try {
            token const value = group.start<token>(
                [this](weft::task_status<token>& status, random_source random, token const& given) {
                    ready_child(status, random, given);
                },
                random_.split(), token(expected));
            require(value.value() == expected, "start() gives what started() was given");
        } catch (planned_failure const&) {
            ++tally_.reported; // here and nowhere else
        } catch (std::logic_error const&) { // it forgot
        }
    }

    void start_within_limit(weft::task_group& group) {
        weft::move_on_after(microseconds(random_.below(300)), [&] { start_ready(group); });
    }

    void create_and_cancel(weft::task_group& group) {
        auto const handle = group.create_task([this, random = random_.split()]() mutable {
            child(group_depth(), random);
            return token(1);
        });
        if (random_.one_in(2)) wait_somehow(random_);
        handle.cancel();
        if (random_.one_in(2)) wait_for(handle);
    }

    void create_and_wait(weft::task_group& group) {
        auto const handle = group.create_task([this, random = random_.split()]() mutable {
            child(group_depth(), random);
            return token(2);
        });
        wait_for(handle);
    }

    // Several look at one outcome: at the same state, the same value, the same exception.
    void create_and_watch(weft::task_group& group) {
        auto const handle = group.create_task([this, random = random_.split()]() mutable {
            child(group_depth(), random);
            return token(3);
        });
        for (int watcher = 0; watcher < 3; ++watcher)
            group.start_soon([handle] { watch(handle); });
        if (random_.one_in(8)) handle.cancel();
    }

    static void watch(weft::task_handle<token> const& handle) {
        bool const done = handle.done();
        weft::task_info const info = handle.info();
        require(!done || info.state == weft::task_state::finished, "what is done has finished");
        bool const cut_short = handle.cancelled();
        require(!cut_short || handle.done(), "what was cut short is done");
        try {
            require(handle.wait().value() == 3, "each gets the value");
        } catch (weft::task_cancelled const&) {
            require(handle.cancelled(), "a handle says that its task was cancelled");
        } catch (weft::task_failed const& failed) {
            look_into(failed);
        }
    }

    static void look_into(weft::task_failed const& failed) {
        try {
            std::rethrow_if_nested(failed);
            violation("a task that failed has a cause");
        } catch (planned_failure const& cause) {
            require(cause.what() == std::string("planned"), "which is what it threw");
        }
    }

    void wait_for(weft::task_handle<token> const& handle) {
        try {
            token const value = handle.wait();
            require(value.value() != 0 && !handle.cancelled(), "wait() gives the task's value");
        } catch (weft::task_cancelled const&) {
            require(handle.cancelled(), "a handle says that its task was cancelled");
        } catch (weft::task_failed const&) { // the group reports it
        }
        require(handle.done(), "a task that was waited for is done");
    }

    tally& tally_;
    random_source random_;
    unsigned const depth_;
    std::atomic<int> living_ = 0;
};

void live(tally& in, random_source random, unsigned depth, unsigned times) {
    for (unsigned i = 0; i < times; ++i) {
        if (random.one_in(4))
            weft::move_on_after(microseconds(random.below(2000)),
                                [&] { node(in, random.split(), depth).run(); });
        else
            node(in, random.split(), depth).run();
    }
}

} // namespace

void group_storm(trial& now) {
    tally in;
    in.tasks_left = now.random.between(100, 20'000 / slowdown);
    auto const hosts = now.random.between(1, 50 / slowdown + 1);
    auto const depth = unsigned(now.random.between(1, 20));
    auto const times = unsigned(now.random.between(1, 20));
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < hosts; ++i)
                group.start_soon([&, random = now.random.split()] { live(in, random, depth, times); });
        });
    });
    require(in.thrown == in.reported, "every failure is reported once");
}

} // namespace stress
