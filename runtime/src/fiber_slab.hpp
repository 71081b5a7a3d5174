#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace weft::detail {

/// Some free control blocks, last in first out: what workers and the pool exchange, as one.
///
/// Lists through `next`, used in turn: so the blocks that are taken next are known without a look at any,
/// and are in the cache by then. A thread that starts tasks for workers to run never gets a warm one back.
struct fiber_magazine {
    static constexpr std::uint32_t capacity = 128;
    static constexpr std::uint32_t lists = 4;

    std::array<fiber*, lists> first{};
    std::uint32_t turn = 0; // whose list has the block that came last
    std::uint32_t count = 0;

    fiber* take() noexcept {
        fiber* const taken = first[turn];
        fiber* const coming = first[turn] = taken->next; // after one of each of the other lists
        turn = (turn + 1) % lists;
        --count;
        if (coming != nullptr)
            for (std::size_t line = 0; line < sizeof(fiber); line += 64)
                __builtin_prefetch(reinterpret_cast<char*>(coming) + line, 1);
        return taken;
    }
    void give(fiber& block) noexcept {
        turn = (turn - 1) % lists;
        block.next = first[turn];
        first[turn] = &block;
        ++count;
    }
    fiber* last_given() const noexcept { return first[turn]; }
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
