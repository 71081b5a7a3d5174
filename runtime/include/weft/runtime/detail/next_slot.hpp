#pragma once

#include <weft/runtime/detail/atomics.hpp>

namespace weft { namespace detail {

/// What a worker runs next: room for one, which its owner fills, and which thieves empty, too.
///
//  How the frequent hand-over from a fiber to the one it woke needs no locked instruction.
//
//    owner                                        thief
//    N1  empty? store                  (release)  T1  not empty?                        (relaxed)
//    N2  else, or to take: exchange    (acq_rel)  T2  exchange with nothing             (acq_rel)
//
//  I1  Only the owner fills it: what N1 sees empty stays so until its store, which overwrites nothing.
//  I2  Of N2 and T2 one gets what is there; it sees all that was written before N1 or N2.
//
//  Nobody sleeps or is woken by it: what is in it is run by its owner, which is awake.
//  Modelled in tests/model/next_slot_model.cpp; the stress modes `steal` and `channel` hammer it.
template <class Item, class Atomics = hardware_atomics> class next_slot {
public:
    /// `alone`: there are no thieves.
    explicit next_slot(bool alone) : item_(Item()), alone_(alone) {}
    next_slot(next_slot const&) = delete;
    next_slot& operator=(next_slot const&) = delete;

    /// Owner only. False: something else is in it, and stays.
    bool fill(Item item) {
        if (!is_empty()) return false;
        item_.store(item, Atomics::release); // N1, pairs with T2 and looks_full()
        return true;
    }

    /// Owner only. Gives what was in it before, or Item().
    Item exchange(Item with) {
        if (!alone_) return item_.exchange(with, Atomics::acq_rel); // N2, pairs with T2
        Item const before = item_.load(Atomics::relaxed); // nobody else looks
        item_.store(with, Atomics::relaxed);              //  "
        return before;
    }

    /// T2. Thieves only.
    Item steal() { return item_.exchange(Item(), Atomics::acq_rel); } // pairs with N1 and N2

    /// Exact for the owner if true; if not, a thief may have been there since.
    bool is_empty() const { return item_.load(Atomics::relaxed) == Item(); } // T1: the exchange decides
    /// The same for others, who may have been told of it in another way.
    bool looks_full() const { return item_.load(Atomics::acquire) != Item(); } // pairs with N1 and N2

private:
    typename Atomics::template atomic<Item> item_;
    bool const alone_;
};

}} // namespace weft::detail
