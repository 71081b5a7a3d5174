#pragma once

#include <weft/runtime/detail/atomics.hpp>

#include <cstdint>

namespace weft { namespace detail {

/// Who owns a mutex, and whether anybody may be waiting for it.
///
//   0               free                      any task: CAS to itself (L1)
//   owner           held, nobody waits        the owner: CAS to 0 (U1). A waiter, under the queue's
//                                             lock: CAS to owner|contended (L2), and only then it
//                                             queues
//   owner|contended held, there may be        changes under the lock only: the owner hands over
//                   waiters                   (U2), or, when all waiters have left, takes the mark
//                                             off (U3)
//
//  I1  With a waiter in the queue the word is never 0: it is handed to the first whose wait can
//      still be won, in one critical section. One who lost its wait to a canceller was not there.
//  I2  The owner's last access is U1, the unlock after U2 (the new owner goes on only when it is
//      delivered, after that), or another round after U3. So the next owner may destroy the mutex.
//  I5  Who finds an owner in the word finds its block as that task's, not as an earlier one left
//      it: who puts it there releases (L1, U2, U3), who looks into it acquires.
//
//  Rejected: storing 0 under the lock when the queue is empty, since the unlock after it would touch
//  a mutex that the next owner has destroyed.
//
//  Modelled in tests/model/mutex_word_model.cpp. The owners are any objects with aligned addresses.
template <class Atomics = hardware_atomics> class mutex_word {
public:
    using value = std::uintptr_t;
    static constexpr value contended = 1;

    template <class Owner> static value of(Owner const& owner) noexcept {
        return reinterpret_cast<value>(&owner);
    }
    template <class Owner> static Owner* owner_in(value word) noexcept {
        return reinterpret_cast<Owner*>(word & ~contended);
    }

    /// A hint, or enough for who asks whether it is the owner itself.
    value peek() const noexcept { return word_.load(Atomics::relaxed); } // see above
    /// For a look into the owner (I5).
    value look() const noexcept { return word_.load(Atomics::acquire); } // I5

    /// L1. Looks first: a read-modify-write that fails costs as much as one that does not.
    bool take_if_free(value self) noexcept {
        value seen = word_.load(Atomics::relaxed); // the CAS decides
        return seen == 0 && word_.compare_exchange_strong(seen, self, Atomics::acq_rel); // U1; I5
    }
    /// L1. False: `seen` has the owner.
    bool take(value self, value& seen) noexcept {
        seen = 0;
        return word_.compare_exchange_strong(seen, self, Atomics::acq_rel); // U1; I5
    }
    /// Under the queue's lock: L1 if it is free, and true; else L2, and `seen` has the owner, which
    /// from here on cannot let go without that lock.
    bool take_or_mark(value self, value& seen) noexcept {
        seen = word_.load(Atomics::acquire); // I5
        for (;;) {
            if (seen == 0) {
                if (word_.compare_exchange_weak(seen, self, Atomics::acq_rel)) return true; // L1
            } else if ((seen & contended) != 0 ||
                       word_.compare_exchange_weak(seen, seen | contended,
                                                   Atomics::acquire)) { // L2
                return false;
            }
        }
    }
    /// Under the queue's lock: L2, unless it is free.
    value mark() noexcept {
        value seen = word_.load(Atomics::acquire); // I5
        while (seen != 0 && (seen & contended) == 0 &&
               !word_.compare_exchange_weak(seen, seen | contended, Atomics::acquire)) { // L2; I5
        }
        return seen;
    }

    /// U1, by the owner. False: there may be waiters, or `held` is somebody else's.
    bool let_go(value self, value& held) noexcept {
        held = word_.load(Atomics::relaxed); // ours, or to be refused
        return held == self && word_.compare_exchange_strong(held, 0, Atomics::release); // L1
    }
    /// By the owner, when let_go() was false. Gives the next owner's node, to be delivered without
    /// the queue's lock, or null: it is free.
    template <class Queue> auto hand_over(Queue& queue) noexcept -> decltype(queue.claim_front()) {
        value held = word_.load(Atomics::relaxed); // only others' marks change it
        do {
            queue.lock();
            if (auto* const next = queue.claim_front()) {
                word_.store(of(*next->waiter) | (queue.waiters.empty() ? 0 : contended), // U2
                            Atomics::release); // I5; the new owner sees all by its delivery
                queue.unlock();
                return next;
            }
            held &= ~contended;
            word_.store(held, Atomics::release); // U3; I5
            queue.unlock();
        } while (!word_.compare_exchange_strong(held, 0, Atomics::release)); // U1: L1
        return nullptr;
    }

protected: // for the model's seeded bugs
    typename Atomics::template atomic<value> word_{0};
};

}} // namespace weft::detail
