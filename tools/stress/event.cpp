#include "chaos.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>

#include <chrono>
#include <deque>

namespace stress {

namespace {

using std::chrono::microseconds;

/// Events that wait for somebody to set them; who takes one sets it.
class to_be_set {
public:
    void put(weft::event& event) {
        std::lock_guard const guard(mutex_);
        events_.push_back(&event);
    }
    weft::event* take() {
        std::lock_guard const guard(mutex_);
        if (events_.empty()) return nullptr;
        weft::event* const first = events_.front();
        events_.pop_front();
        return first;
    }

private:
    std::mutex mutex_; // never across a suspension
    std::deque<weft::event*> events_;
};

/// An event that the last of its waiters destroys, perhaps while set() has not returned yet. The first
/// waiter is patient, so that there is one until set() has been called.
struct short_lived {
    explicit short_lived(std::uint64_t waiters) : waiters_left(waiters) {}

    void wait(random_source& random, bool patient) {
        if (patient || random.one_in(2)) {
            event.wait();
            require(event.is_set(), "wait() lets nobody through before set()");
        } else {
            bool const came = weft::move_on_after(microseconds(random.below(300)), [&] { event.wait(); });
            require(!came || event.is_set(), "wait() lets nobody through before set()");
        }
        progress();
        if (waiters_left.fetch_sub(1) == 1) delete this;
    }

    weft::event event;
    std::atomic<std::uint64_t> waiters_left;
    token const counted;
};

void one_broadcast(random_source random, to_be_set& outside, bool has_outside) {
    std::uint64_t const waiters = 1 + random.below(20);
    auto* const made = new short_lived(waiters); // destroyed by a waiter
    weft::event& event = made->event;
    weft::with_task_group([&](weft::task_group& group) {
        for (std::uint64_t i = 0; i < waiters; ++i) {
            group.start_soon([made, i, own = random.split()]() mutable {
                if (own.one_in(2)) wait_somehow(own); // may come late
                made->wait(own, i == 0);
            });
            if (random.one_in(16)) weft::lowlevel::checkpoint();
        }
        if (has_outside && random.one_in(2)) return outside.put(event);
        if (random.one_in(2)) wait_somehow(random);
        event.set();
    });
}

// Waiters that all leave before it is set leave nothing behind.
void nobody_stays(random_source random) {
    weft::event event;
    weft::with_task_group([&](weft::task_group& group) {
        for (std::uint64_t i = random.below(10); i > 0; --i)
            group.start_soon([&event] { event.wait(); });
        wait_somehow(random);
        group.cancel();
    });
    require(!event.is_set() && event.statistics().tasks_waiting == 0, "a cancelled waiter leaves nothing");
    event.set();
    event.wait();
    progress();
}

} // namespace

void event_storm(trial& now) {
    to_be_set pending;
    auto const threads = now.threads(2);
    outside_threads const setters(threads, now.random, [&](random_source& random) {
        weft::event* const event = pending.take();
        if (event == nullptr) return;
        if (random.one_in(4)) spin(random.below(5000));
        event->set();
    });
    auto const hosts = now.random.between(1, 100 / slowdown);
    auto const times = now.random.between(1, 50);
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t host = 0; host < hosts; ++host)
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t i = 0; i < times; ++i)
                        random.one_in(4) ? nobody_stays(random.split())
                                         : one_broadcast(random.split(), pending, threads != 0);
                });
        });
    });
}

} // namespace stress
