#include "chaos.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/mutex.hpp>

#include <chrono>
#include <deque>
#include <mutex>
#include <optional>
#include <stdexcept>

namespace stress {

namespace {

using std::chrono::microseconds;

struct guarded {
    weft::mutex mutex;
    std::uint64_t inside = 0;  // under the mutex; not atomic on purpose
    std::uint64_t entries = 0; //  "
    std::atomic<std::uint64_t> granted = 0;

    explicit guarded(bool fast) : mutex(weft::mutex_options{.fast_acquire = fast}) {}

    // May be cancelled at any wait: the guard of the caller unlocks.
    void work(random_source& random) {
        ++granted;
        ++entries;
        require(++inside == 1, "one task at a time holds a mutex");
        struct leave {
            std::uint64_t& inside;
            ~leave() { --inside; }
        } const guard{inside};
        if (random.one_in(3)) wait_somehow(random);
        require(inside == 1, "one task at a time holds a mutex");
        progress();
    }
};

struct visitor {
    random_source random;

    void lock_it(guarded& room) {
        std::lock_guard const guard(room.mutex);
        room.work(random);
    }

    void lock_impatiently(guarded& room) {
        weft::move_on_after(microseconds(random.below(200)), [&] { lock_it(room); });
    }

    void try_it(guarded& room) {
        std::unique_lock const guard(room.mutex, std::try_to_lock);
        if (guard.owns_lock()) room.work(random);
    }

    void misuse(guarded& room) {
        std::lock_guard const guard(room.mutex);
        bool refused = false;
        try {
            room.mutex.lock();
        } catch (std::logic_error const&) {
            refused = true;
        }
        require(refused, "a mutex is not recursive");
    }

    void go(std::deque<guarded>& rooms, std::uint64_t times) {
        for (std::uint64_t i = 0; i < times; ++i) {
            guarded& room = rooms[random.below(rooms.size())];
            switch (random.below(8)) {
            case 0:
            case 1:
                lock_impatiently(room);
                break;
            case 2:
                try_it(room);
                break;
            case 3:
                misuse(room);
                break;
            default:
                lock_it(room);
            }
        }
    }
};

// Waiters queue up one after the other, some leave, the rest must come in the order of their arrival.
void in_order(random_source random) {
    weft::mutex mutex;
    std::deque<weft::cancel_scope> scopes;
    std::vector<std::size_t> order, expected; // order: under the mutex
    weft::with_task_group([&](weft::task_group& group) {
        mutex.lock();
        for (std::size_t i = 0, count = random.below(12); i < count; ++i) {
            auto& scope = scopes.emplace_back();
            group.start_soon([&, i] {
                scope.run([&] {
                    std::lock_guard const guard(mutex);
                    order.push_back(i);
                });
            });
            while (mutex.statistics().tasks_waiting != i + 1)
                weft::lowlevel::checkpoint();
        }
        for (std::size_t i = 0; i < scopes.size(); ++i) {
            if (random.one_in(4))
                scopes[i].cancel();
            else
                expected.push_back(i);
        }
        if (random.one_in(2)) weft::lowlevel::checkpoint();
        mutex.unlock();
    });
    require(order == expected, "a mutex is handed over in the order of arrival");
    progress();
}

} // namespace

void mutex_storm(trial& now) {
    std::deque<guarded> rooms;
    for (std::uint64_t i = now.random.between(1, 4); i > 0; --i)
        rooms.emplace_back(now.random.one_in(2));
    auto const visitors = now.random.between(1, 200 / slowdown);
    auto const times = now.random.between(1, 100);
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t i = 0; i < visitors; ++i)
                group.start_soon([&, random = now.random.split()]() mutable {
                    visitor{random.split()}.go(rooms, times);
                    if (random.one_in(8)) in_order(random.split());
                });
        });
    });
    for (guarded const& room : rooms) {
        require(!room.mutex.locked() && room.mutex.statistics().tasks_waiting == 0,
                "a mutex is left as it was");
        require(room.entries == room.granted, "each grant is one entry");
    }
}

} // namespace stress
