#pragma once

#include <cstddef>

namespace weft::detail {

/// Return addresses, innermost first; gives how many. Nobody may run on the stack meanwhile.
///
/// Of a context that waits (see context_switch.hpp): none where the layout of a saved context is not known,
/// which is everywhere but on x86-64.
std::size_t walk_context(void* context, void** frames, std::size_t most) noexcept;
/// Of the caller, from its own caller on.
std::size_t walk_here(void** frames, std::size_t most) noexcept;

} // namespace weft::detail
