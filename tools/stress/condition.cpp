#include "chaos.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/condition_variable.hpp>

#include <chrono>
#include <deque>
#include <mutex>

namespace stress {

namespace {

using std::chrono::microseconds;

/// A bounded queue, as everybody builds it out of a mutex and two conditions.
class bounded_queue {
public:
    explicit bounded_queue(std::size_t room) : room_(room) {}

    void put(std::uint64_t value) {
        std::unique_lock guard(lock_);
        held_by_one held(*this);
        not_full_.wait([&] { return held.free_while([&] { return values_.size() < room_; }); });
        values_.emplace_back(value);
        not_empty_.notify();
    }
    std::uint64_t take() {
        std::unique_lock guard(lock_);
        held_by_one held(*this);
        not_empty_.wait([&] { return held.free_while([&] { return !values_.empty(); }); });
        std::uint64_t const value = values_.front().value();
        values_.pop_front();
        not_full_.notify();
        return value;
    }
    void stir() { // spurious for everybody
        std::unique_lock guard(lock_);
        not_empty_.notify_all();
        not_full_.notify_all();
    }
    bool is_settled() {
        return values_.empty() && !lock_.locked() && not_empty_.statistics().tasks_waiting == 0 &&
               not_full_.statistics().tasks_waiting == 0;
    }

private:
    // The predicate is looked at under the mutex, whatever ended the wait (CD2); and so is the way out.
    struct held_by_one {
        bounded_queue& of;
        explicit held_by_one(bounded_queue& in) : of(in) {}
        ~held_by_one() { require(of.lock_.locked(), "after a wait the mutex is held again"); }
        template <class Look> bool free_while(Look look) {
            require(++of.inside_ == 1, "one task at a time is inside");
            bool const good = look();
            --of.inside_;
            return good;
        }
    };

    std::size_t const room_;
    weft::mutex lock_;
    weft::condition_variable not_full_{lock_}, not_empty_{lock_};
    std::deque<token> values_;  // under lock_
    std::uint64_t inside_ = 0; // under lock_; not atomic on purpose
};

// A put or a take that is cut short did nothing: it is done again.
template <class Call> void until_done(random_source& random, Call call) {
    if (random.one_in(3))
        while (!weft::move_on_after(microseconds(random.below(200)), [&] { call(); })) {}
    else
        call();
    progress();
}

} // namespace

void condition_storm(trial& now) {
    bounded_queue queue(now.random.between(1, 8));
    auto const pairs = now.random.between(1, 60 / slowdown + 1);
    auto const times = now.random.between(1, 100);
    std::atomic<std::uint64_t> put = 0, taken = 0;
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t pair = 0; pair < pairs; ++pair) {
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t i = 0; i < times; ++i) {
                        std::uint64_t const value = random.below(1000);
                        until_done(random, [&] {
                            queue.put(value);
                            put += value;
                        });
                    }
                });
                group.start_soon([&, random = now.random.split()]() mutable {
                    for (std::uint64_t i = 0; i < times; ++i) {
                        until_done(random, [&] { taken += queue.take(); });
                        if (random.one_in(20)) queue.stir();
                    }
                });
            }
        });
    });
    require(put == taken && queue.is_settled(), "what is put is taken once, and nobody waits");
}

} // namespace stress
