#pragma once

#include <weft/runtime/detail/fair_queue.hpp>
#include <weft/runtime/detail/parking.hpp>

namespace weft::detail {

/// The queue that every primitive waits on, for fibers. 16 bytes.
using wait_queue = fair_queue<wait_node, spinlock<lock_rank::queue>>;

static_assert(sizeof(wait_queue) == 16);

} // namespace weft::detail
