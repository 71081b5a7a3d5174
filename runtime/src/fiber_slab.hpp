#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <cstddef>

namespace weft::detail {

/// Some free control blocks, linked through `next`: what workers and the pool exchange, as one.
struct fiber_magazine {
    static constexpr std::uint32_t capacity = 128;

    fiber* first = nullptr;
    std::uint32_t count = 0;

    fiber* take() noexcept {
        fiber* const taken = first;
        first = taken->next;
        if (first != nullptr) {
            __builtin_prefetch(&first->next, 1); // the next one to take waits for this
            for (std::size_t line = 0; line < 192; line += 64)
                __builtin_prefetch(reinterpret_cast<char*>(first) + line, 1);
        }
        --count;
        return taken;
    }
    void give(fiber& block) noexcept {
        block.next = first;
        first = &block;
        ++count;
    }
};

/// Control blocks of the process, in slabs that are never unmapped: whoever holds a stale reference
/// may read the wait word for ever.
class fiber_slabs {
public:
    static constexpr std::uint32_t fibers_per_slab = 8192;

    /// Empty: no memory. Any thread.
    static fiber_magazine take() noexcept;
    static void give(fiber_magazine) noexcept;
    static fiber* take_one() noexcept;
    static fiber* take_for_thread() noexcept; ///< out of a stock that OS threads have of their own
    static void give_one(fiber&) noexcept;

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

/// A worker's own stock of control blocks: two magazines, so that going to and fro at the edge of one
/// does not go to the pool each time.
class fiber_cache {
public:
    fiber* take() noexcept {
        if (current_.count == 0 && !reload()) return nullptr;
        return current_.take();
    }
    void give(fiber& block) noexcept {
        if (current_.count == fiber_magazine::capacity) unload();
        current_.give(block);
    }
    void give_all() noexcept;

private:
    bool reload() noexcept;
    void unload() noexcept;

    fiber_magazine current_;
    fiber_magazine previous_;
};

} // namespace weft::detail
