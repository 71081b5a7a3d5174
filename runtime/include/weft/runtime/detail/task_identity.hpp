#pragma once

#include <compare>
#include <cstdint>

namespace weft::detail {

struct fiber;

/// Which task it is, of all that this process ever runs. The address of a control block is not that: the
/// next task may get the same one.
struct task_identity {
    std::uint64_t run = 0; ///< 0: no task
    std::uint64_t task = 0;
    auto operator<=>(task_identity const&) const = default;
};

task_identity identity_of(fiber const&) noexcept; ///< of a task that has not ended

} // namespace weft::detail
