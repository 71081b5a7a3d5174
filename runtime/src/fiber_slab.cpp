#include "fiber_slab.hpp"

#include <atomic>
#include <new>

#include <sys/mman.h>

namespace weft::detail {

namespace {

constexpr std::size_t most_slabs = (std::size_t(1) << wait_ref::index_bits) / fiber_slabs::fibers_per_slab;

// Read without a lock by fiber_at() and dumps; written under the lock, before `slab_count` is raised.
std::atomic<fiber*> slabs[most_slabs];
std::atomic<std::uint32_t> slab_count = 0;

spinlock<lock_rank::memory> pool_lock;
fiber* pool = nullptr; // free blocks
std::uint32_t pool_count = 0;
std::uint32_t used_of_last_slab = fiber_slabs::fibers_per_slab; // blocks beyond were never touched

bool add_slab() noexcept {
    std::uint32_t const number = slab_count.load(std::memory_order_relaxed); // under the lock
    if (number == most_slabs) return false;
    void* const memory = ::mmap(nullptr, fiber_slabs::fibers_per_slab * sizeof(fiber),
                                PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                                -1, 0);
    if (memory == MAP_FAILED) return false;
    slabs[number].store(static_cast<fiber*>(memory), std::memory_order_relaxed);
    slab_count.store(number + 1, std::memory_order_release); // pairs with end_of_indices()
    used_of_last_slab = number == 0 ? fiber_slabs::first_index : 0;
    return true;
}

fiber* make_one() noexcept { // under the lock; null: no memory
    if (used_of_last_slab == fiber_slabs::fibers_per_slab && !add_slab()) return nullptr;
    std::uint32_t const number = slab_count.load(std::memory_order_relaxed) - 1; // under the lock
    std::uint32_t const place = used_of_last_slab++;
    fiber* const made = new (slabs[number].load(std::memory_order_relaxed) + place) fiber;
    made->index = number * fiber_slabs::fibers_per_slab + place;
    return made;
}

} // namespace

fiber* fiber_at(std::uint32_t index) noexcept {
    return slabs[index / fiber_slabs::fibers_per_slab].load(std::memory_order_relaxed) +
           index % fiber_slabs::fibers_per_slab; // whoever has the index was told after it was made
}

std::uint32_t fiber_slabs::end_of_indices() noexcept {
    pool_lock.lock();
    std::uint32_t const count = slab_count.load(std::memory_order_acquire); // pairs with add_slab()
    std::uint32_t const used = used_of_last_slab;
    pool_lock.unlock();
    return count == 0 ? 0 : (count - 1) * fibers_per_slab + used;
}

fiber* fiber_slabs::take(std::uint32_t wanted, std::uint32_t& count) noexcept {
    fiber* chain = nullptr;
    count = 0;
    pool_lock.lock();
    while (count < wanted) {
        fiber* taken = pool;
        if (taken != nullptr) {
            pool = taken->next;
            --pool_count;
        } else if (taken = make_one(); taken == nullptr) {
            break;
        }
        taken->next = chain;
        chain = taken;
        ++count;
    }
    pool_lock.unlock();
    return chain;
}

void fiber_slabs::give(fiber* chain, fiber* last, std::uint32_t count) noexcept {
    pool_lock.lock();
    last->next = pool;
    pool = chain;
    pool_count += count;
    pool_lock.unlock();
}

bool fiber_cache::refill() noexcept {
    first_ = fiber_slabs::take(fiber_slabs::batch, count_);
    return first_ != nullptr;
}

void fiber_cache::spill(std::uint32_t keep) noexcept {
    if (count_ <= keep) return;
    std::uint32_t const leaving = count_ - keep;
    fiber* last = first_;
    for (std::uint32_t step = 1; step < leaving; ++step)
        last = last->next;
    fiber* const rest = last->next;
    fiber_slabs::give(first_, last, leaving);
    first_ = rest;
    count_ = keep;
}

} // namespace weft::detail
