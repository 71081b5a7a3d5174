#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <cstddef>

namespace weft::detail {

/// Control blocks of the process, in slabs that are never unmapped: whoever holds a stale reference
/// may read the wait word for ever. Blocks are handed to workers in batches.
class fiber_slabs {
public:
    static constexpr std::uint32_t fibers_per_slab = 4096;
    static constexpr std::uint32_t batch = 64;

    /// A chain, through `next`, of up to `wanted` blocks. Null: no memory.
    static fiber* take(std::uint32_t wanted, std::uint32_t& count) noexcept;
    static void give(fiber* chain, fiber* last, std::uint32_t count) noexcept;

    /// Calls visit(fiber&) for every block there is; which of them live, their state says.
    template <class Visit> static void for_each(Visit&& visit) {
        std::uint32_t const end = end_of_indices();
        for (std::uint32_t index = first_index; index < end; ++index)
            visit(*fiber_at(index));
    }
    static constexpr std::uint32_t first_index = 2; // wait_ref::encode never gives 0 or 1

private:
    static std::uint32_t end_of_indices() noexcept;
};

/// A worker's own stock of control blocks.
class fiber_cache {
public:
    fiber* take() noexcept {
        if (first_ == nullptr && !refill()) return nullptr;
        fiber* const taken = first_;
        first_ = taken->next;
        --count_;
        return taken;
    }
    void give(fiber& block) noexcept {
        block.next = first_;
        first_ = &block;
        if (++count_ > most) spill(most / 2);
    }
    void give_all() noexcept { spill(0); }

private:
    static constexpr std::uint32_t most = 1024;
    bool refill() noexcept;
    void spill(std::uint32_t keep) noexcept;

    fiber* first_ = nullptr;
    std::uint32_t count_ = 0;
};

} // namespace weft::detail
