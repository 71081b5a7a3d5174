#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <atomic>
#include <cstdint>

namespace weft::detail {

/// Tasks that a worker spawned and that nobody has begun yet.
///
/// The owner takes the newest: a tree of tasks is then walked depth first, and only one path of it has
/// stacks. Thieves take the oldest, which tend to be the largest. Linked through the control blocks, so
/// that any number fits: `next` towards older ones, `context`, unused before the first run, to newer.
class spawn_list {
public:
    void push(fiber& unstarted) noexcept {
        lock_.lock();
        unstarted.next = newest_;
        unstarted.context = nullptr;
        (newest_ != nullptr ? newest_->context : oldest_raw()) = &unstarted;
        newest_ = &unstarted;
        count_.store(count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); // lock_
        lock_.unlock();
    }

    fiber* pop_newest() noexcept {
        if (empty()) return nullptr;
        lock_.lock();
        fiber* const taken = newest_;
        if (taken != nullptr) {
            newest_ = taken->next;
            (newest_ != nullptr ? newest_->context : oldest_raw()) = nullptr;
            changed_by(-1);
            if (newest_ != nullptr) __builtin_prefetch(newest_);
        }
        lock_.unlock();
        return taken;
    }

    fiber* pop_oldest() noexcept {
        if (empty()) return nullptr;
        lock_.lock();
        fiber* const taken = oldest();
        if (taken != nullptr) unlink_oldest();
        lock_.unlock();
        return taken;
    }

    /// Moves up to half of the oldest, but no more than `most`, to the thief's list, but for one that
    /// is returned.
    fiber* steal_into(spawn_list& own, std::uint32_t most) noexcept {
        if (empty() || !lock_.try_lock()) return nullptr;
        std::uint32_t count = count_.load(std::memory_order_relaxed); // under lock_
        count -= count / 2;
        if (count > most) count = most;
        fiber* chain = nullptr;
        for (std::uint32_t step = 0; step < count; ++step) {
            fiber* const taken = oldest();
            unlink_oldest();
            taken->next = chain; // the oldest ends at the tail
            chain = taken;
        }
        lock_.unlock();
        if (chain == nullptr) return nullptr;
        fiber* const first = chain;
        // Pushed oldest first, so that the own list is ordered, too.
        fiber* reversed = nullptr;
        for (chain = chain->next; chain != nullptr;) {
            fiber* const next = chain->next;
            chain->next = reversed;
            reversed = chain;
            chain = next;
        }
        while (reversed != nullptr) {
            fiber* const next = reversed->next;
            own.push(*reversed);
            reversed = next;
        }
        return first;
    }

    bool empty() const noexcept { // a hint, exact for the owner and after a full fence
        return count_.load(std::memory_order_relaxed) == 0;
    }

private:
    void*& oldest_raw() noexcept { return oldest_; }
    fiber* oldest() const noexcept { return static_cast<fiber*>(oldest_); }
    void changed_by(int change) noexcept {
        count_.store(count_.load(std::memory_order_relaxed) + std::uint32_t(change),
                     std::memory_order_relaxed); // under lock_; read as a hint
    }
    void unlink_oldest() noexcept {
        fiber* const gone = oldest();
        oldest_ = gone->context;
        if (oldest_ != nullptr)
            oldest()->next = nullptr;
        else
            newest_ = nullptr;
        changed_by(-1);
    }

    spinlock<lock_rank::run_queue> lock_;
    std::atomic<std::uint32_t> count_ = 0;
    fiber* newest_ = nullptr;
    void* oldest_ = nullptr; // a fiber; void* like the link that points to it
};

} // namespace weft::detail
