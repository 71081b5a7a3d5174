#pragma once

#include <weft/runtime/detail/atomics.hpp>

#include <cstdint>

namespace weft { namespace detail {

/// One direction of a file descriptor: nothing known, ready, or somebody waits for it.
///
//  How an edge-triggered event meets the one fiber that waits for it.
//
//    waiter                                          poller
//    R1  consume() what is known, then try the       P1  old = exchange(ready)     (acq_rel)
//        system call; EAGAIN:                        P2  old was a reference: claim that wait
//    R2  arm the wait word
//    R3  CAS nothing -> reference       (acq_rel)
//        it was ready: consume it, back to R1
//    R4  suspend; resumed:
//    R5  CAS reference -> nothing       (acq_rel)
//        (it was ready instead: leave that for R1)
//
//  I1  An edge is never lost: `ready` is cleared only by the one who then repeats the system call.
//  I2  `ready` may be stale, so the system call is always tried again; it never means success.
//  I3  After R5 no reference to this wait is left in the word.
//  Modelled in tests/model/readiness_word_model.cpp; the stress mode `socket` hammers it.
template <class Atomics = hardware_atomics> class readiness_word {
public:
    using word = std::uint64_t;

    static constexpr word nothing = 0;
    static constexpr word ready = 1;
    // every other value: a reference to a wait (see wait_ref::encode, which never gives 0 or 1)

    readiness_word() : word_(ready) {} // unknown: the first system call finds out
    readiness_word(readiness_word const&) = delete;
    readiness_word& operator=(readiness_word const&) = delete;

    /// R1. True if an edge was noted; the caller now repeats the system call.
    bool consume() {
        word seen = word_.load(Atomics::relaxed); // the CAS decides
        return seen == ready && word_.compare_exchange_strong(seen, nothing, Atomics::acq_rel); // P1
    }

    /// R3. False: an edge came meanwhile; it is consumed and the caller repeats the system call.
    bool publish(word reference) {
        word seen = nothing;
        if (word_.compare_exchange_strong(seen, reference, Atomics::acq_rel)) return true; // pairs with P1
        word_.compare_exchange_strong(seen, nothing, Atomics::acq_rel); // pairs with P1
        return false;
    }

    /// R5.
    void withdraw(word reference) {
        word seen = reference;
        word_.compare_exchange_strong(seen, nothing, Atomics::acq_rel); // pairs with P1
    }

    /// P1. Gives the reference that the caller must claim, or `nothing`.
    word signal() {
        word const old = word_.exchange(ready, Atomics::acq_rel); // pairs with R1, R3, R5
        return old == ready ? nothing : old;
    }

    bool is_ready() const { return word_.load(Atomics::relaxed) == ready; } // a hint

    /// A new life of the object that holds this word; nobody else may know it yet.
    void reset(word value) { word_.store(value, Atomics::relaxed); } // published with the object

private:
    typename Atomics::template atomic<word> word_;
};

}} // namespace weft::detail
