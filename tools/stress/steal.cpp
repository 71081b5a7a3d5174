#include "chaos.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>

#include <cerrno>
#include <stdexcept>
#include <unistd.h>

namespace stress {

namespace {

struct traveller {
    random_source random;
    std::uint64_t mark;

    void hop() {
        if (random.one_in(8)) spin(random.below(20'000));
        if (random.one_in(16))
            wait_somehow(random);
        else
            weft::lowlevel::checkpoint();
    }

    void with_errno() {
        errno = int(mark);
        weft::lowlevel::checkpoint();
        require(errno == int(mark), "errno travels with its fiber");
    }

    // Suspended in a handler, with others in handlers of their own on the same thread meanwhile.
    void inside_handlers(unsigned depth) {
        try {
            waiting_cleanup const cleanup(random);
            throw std::runtime_error(std::to_string(mark + depth));
        } catch (std::runtime_error const& caught) {
            hop();
            if (depth > 0) inside_handlers(depth - 1);
            hop();
            require(caught.what() == std::to_string(mark + depth), "a caught exception stays what it is");
            rethrown(depth);
        }
    }

    void rethrown(unsigned depth) {
        try {
            throw;
        } catch (std::runtime_error const& again) {
            require(again.what() == std::to_string(mark + depth), "`throw;` throws what was caught here");
        }
        require(std::uncaught_exceptions() == 0, "no exception is in flight in a handler");
    }

    void not_migrating() {
        weft::no_migrate const stay;
        auto const thread = gettid();
        for (int i = 0; i < 5; ++i)
            hop();
        require(gettid() == thread, "a task that must not migrate stays on its thread");
    }

    void go(unsigned steps) {
        for (unsigned step = 0; step < steps; ++step) {
            switch (random.below(5)) {
            case 0:
                with_errno();
                break;
            case 1:
                inside_handlers(unsigned(random.below(4)));
                break;
            case 2:
                not_migrating();
                break;
            default:
                hop();
            }
            progress();
        }
    }
};

// It is bound to the worker that begins it, whichever that is.
void stay_pinned(traveller self, unsigned steps) {
    auto const thread = gettid();
    for (unsigned step = 0; step < steps; ++step) {
        self.hop();
        require(gettid() == thread, "a pinned task stays on its thread");
        progress();
    }
}

} // namespace

void steal_storm(trial& now) {
    auto const travellers = now.random.between(2, 600 / slowdown);
    auto const steps = unsigned(now.random.between(5, 60));
    std::atomic<std::uint64_t> ended = 0;
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < travellers; ++i) {
                traveller next{now.random.split(), 1 + i};
                bool const pinned = now.random.one_in(5);
                group.start_soon({.pinned = pinned}, [&ended, next, pinned, steps]() mutable {
                    pinned ? stay_pinned(next, steps) : next.go(steps);
                    ++ended;
                });
            }
        });
        require(ended == travellers, "the group waits for all of its tasks");
    });
}

} // namespace stress
