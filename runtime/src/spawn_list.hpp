#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

namespace weft::detail {

/// Tasks that a worker spawned and that nobody has begun yet.
///
/// The owner takes the newest: a tree of tasks is then walked depth first, and only one path of it has
/// stacks. Thieves take the oldest, which tend to be the largest.
///
//  A ring of pointers that grows, under a lock: a thief copies pointers and touches the control blocks,
//  which lie in the owner's cache, only after it has let the lock go. (Linked through the blocks, each
//  step of a thief was a cache miss, with the owner shut out for as many as it took.)
class spawn_list {
public:
    static constexpr std::uint32_t first_capacity = 256;
    static constexpr std::uint32_t kept_capacity = 16 * 1024; // more than that is given back

    /// `alone`: there are no thieves, and so no lock.
    explicit spawn_list(bool alone) : alone_(alone) {}

    /// Owner only. False: no memory.
    bool push(fiber& unstarted) noexcept {
        if (count() == capacity_ && !grow()) return false;
        take_lock();
        slots_[(oldest_ + count()) & (capacity_ - 1)] = &unstarted;
        set_count(count() + 1);
        release_lock();
        return true;
    }

    /// Owner only.
    fiber* pop_newest() noexcept {
        if (empty()) return nullptr;
        fiber* taken = nullptr;
        take_lock();
        if (std::uint32_t const left = count(); left != 0) {
            taken = slots_[(oldest_ + left - 1) & (capacity_ - 1)];
            if (left > looked_ahead) prefetch(*slots_[(oldest_ + left - 1 - looked_ahead) & (capacity_ - 1)]);
            set_count(left - 1);
        }
        release_lock();
        if (capacity_ > kept_capacity && empty()) shrink();
        return taken;
    }

    fiber* pop_oldest() noexcept {
        fiber* taken = nullptr;
        take_oldest(&taken, 1);
        return taken;
    }

    /// Up to half of what is there, but no more than `most`; the oldest come first.
    std::uint32_t take_oldest(fiber** out, std::uint32_t most) noexcept {
        if (empty()) return 0;
        take_lock();
        std::uint32_t taken = count() - count() / 2;
        if (taken > most) taken = most;
        for (std::uint32_t step = 0; step < taken; ++step)
            out[step] = slots_[(oldest_ + step) & (capacity_ - 1)];
        oldest_ += taken;
        set_count(count() - taken);
        release_lock();
        for (std::uint32_t step = 1; step < taken; ++step)
            prefetch(*out[step]);
        return taken;
    }

    bool empty() const noexcept { return count() == 0; } // a hint, exact for the owner and after a full fence
    std::uint32_t size() const noexcept { return count(); } // the same

private:
    static constexpr std::uint32_t looked_ahead = 3; // weft-bench spawn_join_all

    static void prefetch(fiber const& unstarted) noexcept { // all of it will be written
        for (std::size_t line = 0; line < sizeof(fiber); line += 64)
            __builtin_prefetch(reinterpret_cast<char const*>(&unstarted) + line, 1);
    }

    std::uint32_t count() const noexcept { return count_.load(std::memory_order_relaxed); } // lock_, or a hint
    void set_count(std::uint32_t now) noexcept { count_.store(now, std::memory_order_relaxed); } // lock_
    void take_lock() noexcept {
        if (!alone_) lock_.lock();
    }
    void release_lock() noexcept {
        if (!alone_) lock_.unlock();
    }

    // Only the owner writes `capacity_`, so that it may read it without the lock.
    [[gnu::noinline]] bool grow() noexcept {
        std::uint32_t const wanted = capacity_ == 0 ? first_capacity : 2 * capacity_;
        std::unique_ptr<fiber*[]> larger(new (std::nothrow) fiber*[wanted]);
        if (larger == nullptr) return false;
        take_lock();
        for (std::uint32_t step = 0; step < count(); ++step)
            larger[step] = slots_[(oldest_ + step) & (capacity_ - 1)];
        replace_slots(larger, wanted);
        release_lock();
        return true;
    }
    [[gnu::noinline]] void shrink() noexcept {
        std::unique_ptr<fiber*[]> smaller(new (std::nothrow) fiber*[first_capacity]);
        if (smaller == nullptr) return;
        take_lock();
        replace_slots(smaller, first_capacity); // empty: only the owner adds
        release_lock();
    }
    void replace_slots(std::unique_ptr<fiber*[]>& by, std::uint32_t capacity) noexcept {
        slots_.swap(by); // freed by the caller, after unlocking
        capacity_ = capacity;
        oldest_ = 0;
    }

    spinlock<lock_rank::run_queue> lock_;
    bool const alone_;
    std::atomic<std::uint32_t> count_ = 0;
    std::uint32_t capacity_ = 0; // a power of two
    std::uint32_t oldest_ = 0;   // comes round
    std::unique_ptr<fiber*[]> slots_;
};

} // namespace weft::detail
