#pragma once

#include "relacy_atomics.hpp"

#include <weft/runtime/detail/spinlock.hpp>

namespace weft { namespace model {

/// What a waiter of the library's spinlock does in a model, where nothing may spin without yielding.
template <class Machine> void wait_for_spinlock(modelled_atomic<std::uint8_t, Machine>& state) {
    while (state.exchange(1, rl::mo_acquire) != 0)
        rl::yield(1, $);
}

}} // namespace weft::model
