#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <memory>
#include <unordered_map>

namespace weft::detail {

/// The context variables of a task: never changed, only replaced, so that children can share it.
class value_store {
public:
    std::unordered_map<void const*, std::shared_ptr<void const>> values;
    mutable std::atomic<std::uint32_t> references = 1;
};

/// What a child of this task starts with; null: the calling thread's own.
value_store const* inherit_context(fiber const* spawner) noexcept;
void release_context(value_store const*) noexcept;

} // namespace weft::detail
