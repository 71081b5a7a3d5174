#pragma once

#include <weft/runtime/detail/atomics.hpp>

#include <cstdint>

namespace weft { namespace detail {

/// Which workers sleep, and how many search for work: one word for all workers of a run.
///
//  How a worker goes to sleep without losing a wake-up, and how few are woken.
//
//    submitter                                    worker that found nothing
//    S1  queue.push(fiber)             (release)  W1  word += own bit, -1 if searching  (seq_cst)
//    S2  fence                         (seq_cst)  W2  fence                             (seq_cst)
//    S3  searching or nobody asleep?              W3  look into every queue again       (acquire)
//        done                          (relaxed)  W4  something there: retract()
//    S4  CAS: clear one bit, searching += 1       W5  else sleep until unparked
//    S5  unpark that worker
//
//  I1  A queued fiber is never left with every worker asleep: of S2 and W2 one comes first in the
//      single total order, so either S3 sees the sleeper or W3 sees the fiber.
//  I2  A worker that a waker chose counts as searching from S4 on, so that the next submitter does not
//      wake a second one. A token that it has not taken when it announces itself again only ends
//      that sleep early, see I4.
//  I3  The last searcher that finds work calls notify() before it runs it: work that was pushed while
//      it searched (S3 relied on it) gets another searcher.
//  I4  A worker that returns from its sleep for another reason (an event, a timer, EINTR) first calls
//      retract(): only if its bit is already gone was it chosen, and only then is the +1 its own.
//
//  Rejected: treating every return from the sleep as a wake-up (deadlocks, the model finds it); waking
//  a worker at each push (a futex call a push, and a storm of workers that find nothing).
//  Modelled in tests/model/idle_word_model.cpp; the stress modes `steal` and `spawn` hammer it.
template <class Atomics = hardware_atomics> class idle_word {
public:
    using word = std::uint64_t;

    static constexpr unsigned searching_bits = 16;
    static constexpr unsigned max_workers = 64 - searching_bits;
    static constexpr int nobody = -1;

    idle_word() : word_(0) {}
    idle_word(idle_word const&) = delete;
    idle_word& operator=(idle_word const&) = delete;

    /// S2-S4. Gives the index of the worker that the caller must unpark (S5), or `nobody`.
    int notify() {
        Atomics::full_fence(word_);              // S2, pairs with W2
        word seen = word_.load(Atomics::relaxed); // ordered by the fence
        for (;;) {
            if (searching(seen) != 0 || sleepers(seen) == 0) return nobody;
            unsigned const chosen = lowest(sleepers(seen));
            if (word_.compare_exchange_weak(seen, (seen & ~bit(chosen)) + 1, Atomics::seq_cst)) // retract()
                return int(chosen);
        }
    }

    /// Wakes a given sleeper, if it sleeps; what it must see was written before. True: the caller must
    /// unpark it. For shutdown, pinned fibers and timers that moved.
    bool wake(unsigned worker) {
        Atomics::full_fence(word_); // pairs with W2
        return choose(worker);
    }

    /// Takes a sleeper out. True: it was asleep.
    bool choose(unsigned worker) {
        word seen = word_.load(Atomics::relaxed); // the CAS decides
        while ((seen & bit(worker)) != 0)
            if (word_.compare_exchange_weak(seen, (seen & ~bit(worker)) + 1, Atomics::seq_cst)) // retract()
                return true;
        return false;
    }

    /// At most half of the workers search at a time; false: too many do already.
    bool try_start_searching(unsigned workers) {
        word seen = word_.load(Atomics::relaxed); // a hint
        if (2 * searching(seen) >= workers) return false;
        word_.fetch_add(1, Atomics::seq_cst); // pairs with S3
        return true;
    }

    /// A searcher found work. True: it was the last one; if there is more, it must call notify() (I3).
    bool stop_searching() {
        bool const last = searching(word_.fetch_sub(1, Atomics::seq_cst)) == 1; // pairs with S3
        Atomics::full_fence(word_); // pairs with S2: what relied on us is visible now
        return last;
    }

    /// W1, W2. Afterwards the worker looks into every queue again.
    void announce_sleep(unsigned worker, bool was_searching) {
        word_.fetch_add(bit(worker) - (was_searching ? 1 : 0), Atomics::seq_cst); // W1, pairs with S3
        Atomics::full_fence(word_); // W2, pairs with S2
    }

    /// W4 and I4. The worker is awake and counts as searching afterwards in both cases. True: it took
    /// its announcement back itself; false: a waker had chosen it and is going to unpark it.
    bool retract(unsigned worker) { return choose(worker); }

    /// True if every one of `workers` sleeps: nothing runs, nothing is searched for.
    bool all_asleep(unsigned workers) const {
        word const seen = word_.load(Atomics::seq_cst); // W1
        return searching(seen) == 0 && sleepers(seen) == all(workers);
    }
    bool any_asleep() const { return sleepers(word_.load(Atomics::relaxed)) != 0; } // a hint
    bool any_searching() const { return searching(word_.load(Atomics::relaxed)) != 0; } // a hint
    bool is_asleep(unsigned worker) const {
        return (word_.load(Atomics::relaxed) & bit(worker)) != 0; // a hint
    }

    /// The only one awake, itself announced as asleep, becomes a searcher again if really all sleep.
    bool retract_as_last(unsigned worker, unsigned workers) {
        word seen = word_.load(Atomics::relaxed); // the CAS decides
        if (searching(seen) != 0 || sleepers(seen) != all(workers)) return false;
        return word_.compare_exchange_strong(seen, (seen & ~bit(worker)) + 1, Atomics::seq_cst); // W1
    }

private:
    static constexpr word bit(unsigned worker) { return word(1) << (searching_bits + worker); }
    static constexpr word all(unsigned workers) { return (word(1) << workers) - 1; }
    static constexpr unsigned searching(word value) {
        return unsigned(value & ((word(1) << searching_bits) - 1));
    }
    static constexpr word sleepers(word value) { return value >> searching_bits; }
    static unsigned lowest(word mask) { return unsigned(__builtin_ctzll(mask)); }

    typename Atomics::template atomic<word> word_;
};

}} // namespace weft::detail
