#include "chaos.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/sync/shared_mutex.hpp>

#include <chrono>
#include <mutex>
#include <shared_mutex>

namespace stress {

namespace {

using std::chrono::microseconds;

struct library {
    weft::shared_mutex lock;
    std::atomic<int> readers = 0;
    std::atomic<int> writers = 0;
    std::uint64_t text = 0;   // under the lock; not atomic on purpose
    std::uint64_t copy = 0;   //  "
    std::uint64_t writes = 0; // under the exclusive lock

    struct inside {
        std::atomic<int>& count;
        explicit inside(std::atomic<int>& of) : count(of) { ++count; }
        ~inside() { --count; }
    };

    void read(random_source& random) {
        inside const here(readers);
        require(writers == 0, "no writer is inside with a reader");
        std::uint64_t const before = text;
        if (random.one_in(3)) wait_somehow(random);
        require(text == before && copy == before, "readers see what no writer changes meanwhile");
        progress();
    }
    void write(random_source& random) {
        inside const here(writers);
        require(writers == 1 && readers == 0, "a writer is inside alone");
        ++writes;
        ++text;
        struct complete { // also if it is cancelled
            library& of;
            ~complete() { of.copy = of.text; }
        } const at_the_end{*this};
        if (random.one_in(3)) wait_somehow(random);
        progress();
    }

    void visit(random_source& random) {
        switch (random.below(6)) {
        case 0: {
            std::unique_lock const guard(lock, std::try_to_lock);
            if (guard.owns_lock()) write(random);
            break;
        }
        case 1: {
            std::shared_lock const guard(lock, std::try_to_lock);
            if (guard.owns_lock()) read(random);
            break;
        }
        case 2: {
            std::unique_lock const guard(lock);
            write(random);
            break;
        }
        default: {
            std::shared_lock const guard(lock);
            read(random);
        }
        }
    }
};

} // namespace

void shared_storm(trial& now) {
    library of;
    auto const tasks = now.random.between(1, 150 / slowdown);
    auto const times = now.random.between(1, 80);
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < tasks; ++i)
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t step = 0; step < times; ++step) {
                        if (random.one_in(3))
                            weft::move_on_after(microseconds(random.below(200)), [&] { of.visit(random); });
                        else
                            of.visit(random);
                    }
                });
            // Nobody inside, nobody waiting: both kinds come in at once.
        });
        require(of.lock.try_lock(), "a shared mutex is left as it was");
        of.lock.unlock();
        require(of.lock.try_lock_shared() && of.lock.try_lock_shared(), "for readers, too");
        of.lock.unlock_shared();
        of.lock.unlock_shared();
    });
    require(of.writes == of.text && of.copy == of.text, "each write is done once");
}

} // namespace stress
