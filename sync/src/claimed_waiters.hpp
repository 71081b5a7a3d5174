#pragma once

#include <weft/runtime/detail/wait_queue.hpp>

namespace weft::detail {

class claimed_waiters final : public claimed_nodes<wait_node, spinlock<lock_rank::queue>> {};

} // namespace weft::detail
