#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <array>
#include <atomic>
#include <cstdint>

namespace weft::detail {

/// A worker's runnable fibers: a ring that its owner fills, and that everybody may empty.
///
//  How a thief copies half of the ring while the owner goes on.
//
//  `head_` is two indices in one word: `taken`, up to which slots are free for the owner to fill, and
//  `front`, the next to be popped. They differ only while a thief copies the slots between them.
//
//    owner push: slot[tail] = f; tail += 1 (release)      needs tail - taken < capacity
//    owner pop:  CAS front += 1, and taken too if equal   (acq_rel)
//    thief:      CAS front += n, taken stays (refused if they differ)   copy   CAS taken = front
//                needs tail - taken <= capacity / 2 in its own ring
//
//  Indices are 32 bits wide: narrower ones come round while a thief is stopped, and its CAS succeeds on
//  another generation. From the ring of Tokio and Go.
class ready_ring {
public:
    static constexpr std::uint32_t capacity = 256;
    static constexpr std::uint32_t enough = 24; // with fewer of them pop() cannot fetch ahead

    /// Owner only. False: full.
    bool push(fiber& runnable) noexcept {
        std::uint32_t const tail = tail_.load(std::memory_order_relaxed); // only we write it
        if (tail - taken(head_.load(std::memory_order_acquire)) >= capacity) return false; // pop, steal
        slots_[tail % capacity].store(&runnable, std::memory_order_relaxed); // published by tail_
        tail_.store(tail + 1, std::memory_order_release); // pairs with pop() and claim_half()
        return true;
    }

    /// Owner only. `alone`: there are no thieves.
    fiber* pop(bool alone) noexcept {
        if (alone) {
            std::uint32_t const front = front_of(head_.load(std::memory_order_relaxed)); // only we
            if (front == tail_.load(std::memory_order_relaxed)) return nullptr;           // only we
            head_.store(pack(front + 1, front + 1), std::memory_order_relaxed);           // only we
            prefetch_after(front + 1);
            return slots_[front % capacity].load(std::memory_order_relaxed); // only we
        }
        std::uint64_t head = head_.load(std::memory_order_acquire); // pairs with other takers
        for (;;) {
            std::uint32_t const front = front_of(head);
            if (front == tail_.load(std::memory_order_relaxed)) return nullptr; // only we write it
            std::uint32_t const next = front + 1;
            std::uint64_t const after = pack(taken(head) == front ? next : taken(head), next);
            if (head_.compare_exchange_weak(head, after, std::memory_order_acq_rel)) { // thieves
                prefetch_after(next);
                return slots_[front % capacity].load(std::memory_order_relaxed); // ours to read
            }
        }
    }

    /// Moves half of what is there to the thief's empty ring, but for one that is returned. By the
    /// thief's owner.
    fiber* steal_into(ready_ring& own) noexcept {
        if (!own.has_room_for_half()) return nullptr;
        claim const claimed = claim_half();
        return claimed.count != 0 ? move_claimed(claimed, own) : nullptr;
    }

    /// The two steps of steal_into(), between which a thief may be stopped for long.
    struct claim {
        std::uint32_t front;
        std::uint32_t count; // 0: nothing to be had
    };
    claim claim_half() noexcept {
        std::uint64_t head = head_.load(std::memory_order_acquire); // pairs with other takers
        for (;;) {
            std::uint32_t const front = front_of(head);
            if (taken(head) != front) return {front, 0}; // another thief is at work
            std::uint32_t const tail = tail_.load(std::memory_order_acquire); // pairs with push()
            std::uint32_t count = tail - front;
            count -= count / 2;
            if (count == 0 || count > capacity) return {front, 0}; // empty, or head is outdated
            if (head_.compare_exchange_weak(head, pack(front, front + count),
                                            std::memory_order_acq_rel)) // pop() and other thieves
                return {front, count};
        }
    }
    fiber* move_claimed(claim of, ready_ring& own) noexcept {
        std::uint32_t const own_tail = own.tail_.load(std::memory_order_relaxed); // only we write it
        for (std::uint32_t step = 1; step < of.count; ++step)
            own.slots_[(own_tail + step - 1) % capacity].store(
                slots_[(of.front + step) % capacity].load(std::memory_order_relaxed), // ours: claimed
                std::memory_order_relaxed);                                           // published below
        fiber* const first = slots_[of.front % capacity].load(std::memory_order_relaxed); // ours: claimed
        std::uint64_t now = head_.load(std::memory_order_acquire); // pairs with pop()
        while (!head_.compare_exchange_weak(now, pack(front_of(now), front_of(now)),
                                            std::memory_order_acq_rel)) {} // gives the slots back
        own.tail_.store(own_tail + of.count - 1, std::memory_order_release); // pairs with claim_half()
        return first;
    }

    /// Owner only. An empty ring may have none: a thief that was stopped is still to copy out of slots
    /// that were claimed when it was full.
    bool has_room_for_half() const noexcept {
        std::uint32_t const used = tail_.load(std::memory_order_relaxed) - // only we write it
                                   taken(head_.load(std::memory_order_acquire)); // pairs with thieves
        return used <= capacity / 2;
    }

    bool empty() const noexcept { // a hint, exact for the owner and after a full fence
        std::uint32_t const front = front_of(head_.load(std::memory_order_acquire)); // takers
        return front == tail_.load(std::memory_order_acquire);                       // push()
    }
    std::uint32_t size() const noexcept { // a hint
        std::uint32_t const front = front_of(head_.load(std::memory_order_relaxed)); // a hint
        return tail_.load(std::memory_order_relaxed) - front; //  "
    }

private:
    static constexpr std::uint64_t pack(std::uint32_t taken, std::uint32_t front) {
        return std::uint64_t(taken) << 32 | front;
    }
    static constexpr std::uint32_t taken(std::uint64_t head) { return std::uint32_t(head >> 32); }
    static constexpr std::uint32_t front_of(std::uint64_t head) { return std::uint32_t(head); }

    // A cold fiber costs three rows of misses: its control block, the walk through the page tables to its
    // stack, the stack. Looking ahead hides most of them (weft-bench yield_100000). A prefetch waits for
    // its page walk, some 200 ns under virtualisation, and so does all that comes after; walks of several
    // pages overlap, but only if nothing lies between them (320 ns a fiber one by one, 110 by eights).
    // The fiber ahead may be stolen meanwhile; its block stays readable, and a wrong address only
    // prefetches in vain. ThreadSanitizer would call the read of `context` a race, rightly.
    void prefetch_after([[maybe_unused]] std::uint32_t next) const noexcept {
#if !defined(__SANITIZE_THREAD__)
        std::uint32_t const tail = tail_.load(std::memory_order_relaxed); // a hint
        std::uint32_t const left = tail - next;
        if (left > capacity) return; // outdated
        if (left > blocks_ahead) __builtin_prefetch(slot(next + blocks_ahead)); // what a switch and a wait need
        if (next % pages_at_once == 0 && left > blocks_ahead)
            for (std::uint32_t step = 0; step < pages_at_once; ++step)
                prefetch_pages(*slot(next + pages_ahead + step));
        if (left > frames_ahead) {
            char const* const first = what_goes_on(*slot(next + frames_ahead)) - 64;
            for (std::size_t line = 0; line < frames_prefetched; line += 64)
                __builtin_prefetch(first + line);
        }
#endif
    }
    static void prefetch_pages(fiber const& ahead) noexcept {
        char const* const first = what_goes_on(ahead);
        __builtin_prefetch(first);
        if (ahead.pages_up != 0) __builtin_prefetch(first + ahead.pages_up * fiber::page);
    }
    // Its stack, or the block of one that has not begun. Not 0: a walk that fails is repeated each time.
    static char const* what_goes_on(fiber const& ahead) noexcept {
        void const* const context = ahead.context;
        return context != nullptr ? static_cast<char const*>(context)
                                  : reinterpret_cast<char const*>(&ahead) + 64;
    }
    fiber const* slot(std::uint32_t index) const noexcept {
        return slots_[index % capacity].load(std::memory_order_relaxed); // a hint
    }

    static constexpr std::uint32_t blocks_ahead = 16;
    static constexpr std::uint32_t pages_ahead = 4;       // until then their blocks have arrived
    static constexpr std::uint32_t pages_at_once = 8;
    static constexpr std::uint32_t frames_ahead = 2;      // until then their pages are known
    static constexpr std::size_t frames_prefetched = 320; // from the switch to who called a stream
    static_assert(pages_ahead + pages_at_once < blocks_ahead && blocks_ahead + pages_at_once <= enough);

    alignas(64) std::atomic<std::uint64_t> head_ = 0;
    alignas(64) std::atomic<std::uint32_t> tail_ = 0;
    alignas(64) std::array<std::atomic<fiber*>, capacity> slots_{};
};

} // namespace weft::detail
