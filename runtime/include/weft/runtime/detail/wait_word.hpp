#pragma once

#include <weft/runtime/detail/atomics.hpp>

#include <cstdint>

namespace weft { namespace detail {

/// Why a wait ended. The winner of the claim writes it, the waiter reads it.
enum class wake_reason : std::uint8_t {
    none,      ///< not claimed, or withdrawn by the waiter itself
    event,     ///< what was waited for happened
    cancelled, ///< a cancel scope of the waiter was cancelled
    timer,     ///< the time that was waited for has come
    closed,    ///< the resource was closed by somebody else
    broken     ///< the other side is gone
};

/// The one word on which a fiber waits: decides who wakes it, and that exactly one does.
///
//  How a waiter is woken once, by one party, and never while it still stands on its stack.
//
//    waiter                                         waker (event, timer, canceller, closer)
//    A1  word.exchange(epoch+1 | armed)  (seq_cst)  C1  read word; not that epoch, or claimed: lost
//    A2  look at the attention word      (seq_cst)  C2  CAS |= claimed, reason          (acq_rel)
//    A3  publish {fiber, epoch} where wakers look       (without a payload also |= delivered)
//    A4  delivered already? go on without a switch  C3  write the payload into the waiter's node
//    A5  switch away; on the next stack:            C4  fetch_or(delivered)             (acq_rel)
//        fetch_add(parked)               (acq_rel)      or, if parked is set, a store: nobody
//                                                       else writes a word claimed and parked
//                                                   C5  parked was set: schedule the waiter
//    A6  delivered was set: schedule the waiter
//
//  Whoever wants to look at the stack of a fiber that waits, and keep it from going on meanwhile:
//    L1  CAS: parked away, if not claimed (acq_rel): to wakers the fiber has not left its stack yet
//    L2  look; then fetch_add(parked)     (acq_rel), and if delivered was set: schedule the waiter
//
//  I1  Exactly one waker wins an epoch: `claimed` is set once, by CAS.
//  I2  Exactly one party schedules the waiter: the later of `parked` and `delivered` to be set sees the
//      other's bit, since `parked` is set by a read-modify-write, and `delivered` by one unless it has
//      seen `parked`.
//  I3  Nobody schedules a waiter that still stands on its stack: `parked` is set after the switch. Nor one
//      that is looked at: L1 and L2 are to wakers as if it were still about to switch.
//  I4  A1 is a read-modify-write in the single total order, and so is the canceller's write of the
//      attention word: either A2 sees the cancellation or the canceller's C1 sees the armed wait.
//  I5  A stale reference is harmless: the word lives in memory that is never given back, and its
//      epoch has moved on.
//
//  States: idle (owner: the fiber) -> armed (owner: the fiber) -> claimed (owner: the winner, which
//  alone may write the payload) -> delivered (owner: whoever schedules) -> idle.
//  Modelled in tests/model/wait_word_model.cpp; the stress modes `cancel` and `event` hammer it.
template <class Atomics = hardware_atomics> class wait_word {
public:
    using word = std::uint64_t;

    static constexpr word parked = 1;
    static constexpr word claimed = 2;
    static constexpr word delivered = 4;
    static constexpr word armed = 8;
    static constexpr word cancellable = 16;
    static constexpr unsigned reason_shift = 8;
    static constexpr unsigned epoch_shift = 16;
    static constexpr word reason_mask = word(0xff) << reason_shift;
    static constexpr word flags_mask = (word(1) << epoch_shift) - 1;
    /// References may carry fewer bits of the epoch than the word; these are always compared.
    static constexpr word epoch_mask = (word(1) << 38) - 1;

    enum class claim_result : std::uint8_t {
        lost,    ///< somebody else ended this wait, or it is over
        won,     ///< ours; whoever sets `parked` schedules
        schedule ///< ours, and we schedule
    };

    wait_word() : word_(0) {}
    wait_word(wait_word const&) = delete;
    wait_word& operator=(wait_word const&) = delete;

    static word epoch_of(word value) { return (value >> epoch_shift) & epoch_mask; }
    static wake_reason reason_of(word value) {
        return wake_reason((value & reason_mask) >> reason_shift);
    }
    static bool is_open(word value) { return (value & armed) != 0 && (value & claimed) == 0; }

    /// A1. Only by the waiter. Gives the epoch that wakers must name.
    word arm(bool can_be_cancelled) {
        word const epoch = (word_.load(Atomics::relaxed) >> epoch_shift) + 1; // only we move it
        word const next = (epoch << epoch_shift) | armed | (can_be_cancelled ? cancellable : 0);
        word_.exchange(next, Atomics::seq_cst); // pairs with the canceller's RMW of the attention word
        return epoch & epoch_mask;
    }

    /// A5, A6. On the stack that runs after the waiter's. True: the caller schedules the waiter.
    bool park() { // the bit is not set: an addition sets it in one instruction and gives the others
        return (word_.fetch_add(parked, Atomics::acq_rel) & delivered) != 0; // pairs with C2 and C4
    }

    /// L1. By anybody. False: nothing to hold; it is about to go on, or held by another. True: L2 follows,
    /// which is park().
    bool hold() {
        word seen = word_.load(Atomics::relaxed); // the exchange decides
        while (is_open(seen) && (seen & parked) != 0)
            if (word_.compare_exchange_weak(seen, seen & ~parked, Atomics::acq_rel)) // park(), wakers
                return true;
        return false;
    }

    /// C1, C2 without a payload: claimed and delivered at once.
    claim_result claim(word epoch, wake_reason reason) { return take(epoch, reason, delivered); }

    /// C1, C2 with a payload: the winner writes it and then calls deliver().
    claim_result claim_to_fill(word epoch, wake_reason reason) { return take(epoch, reason, 0); }

    /// The canceller's C1, C2: for the wait that it saw, if that can be cancelled.
    claim_result claim_if(word seen, wake_reason reason) {
        if ((seen & cancellable) == 0) return claim_result::lost;
        return take(epoch_of(seen), reason, delivered);
    }

    /// C4, C5. True: the caller schedules the waiter.
    bool deliver() {
        word const seen = word_.load(Atomics::acquire); // pairs with park()
        if ((seen & parked) == 0)
            return (word_.fetch_or(delivered, Atomics::acq_rel) & parked) != 0; // pairs with park()
        word_.store(seen | delivered, Atomics::release); // claimed and parked: nobody else writes
        return true;
    }

    word load() const { return word_.load(Atomics::seq_cst); } // the canceller's look after its RMW
    bool is_delivered() const {
        return (word_.load(Atomics::acquire) & delivered) != 0; // pairs with C2 and C4
    }
    bool is_claimed() const {
        return (word_.load(Atomics::acquire) & claimed) != 0; // pairs with C2
    }
    wake_reason reason() const { return reason_of(word_.load(Atomics::acquire)); } // pairs with C2

    /// The waiter ends its own wait without switching away. False: a waker was first.
    bool withdraw() {
        word const seen = word_.load(Atomics::relaxed); // take() decides
        return take(epoch_of(seen), wake_reason::none, delivered) != claim_result::lost;
    }

private:
    static constexpr word encode(wake_reason reason) { return word(reason) << reason_shift; }

    claim_result take(word epoch, wake_reason reason, word also) {
        word seen = word_.load(Atomics::acquire); // pairs with arm(): the epoch's fields are visible
        while (is_open(seen) && epoch_of(seen) == epoch) {
            word const next = (seen & ~reason_mask) | claimed | also | encode(reason);
            if (word_.compare_exchange_weak(seen, next, Atomics::acq_rel)) { // pairs with park()
                if (also == 0) return claim_result::won;
                return (seen & parked) != 0 ? claim_result::schedule : claim_result::won;
            }
        }
        return claim_result::lost;
    }

    typename Atomics::template atomic<word> word_;
};

}} // namespace weft::detail
