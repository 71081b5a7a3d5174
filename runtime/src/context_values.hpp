#pragma once

#include <weft/runtime/context_var.hpp>
#include <weft/runtime/detail/fiber.hpp>

#include <memory>
#include <unordered_map>

namespace weft::detail {

/// The context variables of a task: never changed, only replaced, so that children can share it.
class value_store {
public:
    std::unordered_map<variable_key, std::shared_ptr<void const>> values;
    mutable std::atomic<std::uint32_t> references = 1;
};

/// What a child of this task starts with; null: the calling thread's own.
value_store const* inherit_context(fiber const* spawner) noexcept;
void release_context(value_store const*) noexcept;

/// While a task is the calling thread's and no worker's (blocking_region), its values are the thread's, and
/// those of the thread are kept by the task. Called before that and after it.
void swap_with_thread(fiber&) noexcept;

} // namespace weft::detail
