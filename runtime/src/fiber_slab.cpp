#include "fiber_slab.hpp"

#include <weft/runtime/detail/mutex_wait.hpp>

#include <atomic>
#include <new>
#include <utility>

#include <pthread.h>
#include <sys/mman.h>

namespace weft::detail {

namespace {

constexpr std::size_t most_slabs = (std::size_t(1) << wait_ref::index_bits) / fiber_slabs::fibers_per_slab;

constexpr std::size_t bytes_of_blocks = fiber_slabs::fibers_per_slab * sizeof(fiber);
static_assert(bytes_of_blocks == mutex_wait::bytes_of_blocks);
// Behind the blocks of a slab: untouched, unless one waits for a mutex.
constexpr std::size_t bytes_of_waits = fiber_slabs::fibers_per_slab * sizeof(mutex_wait);

// Read without a lock by fiber_at() and dumps; written under the lock, before `slab_count` is raised.
std::atomic<fiber*> slabs[most_slabs];
std::atomic<std::uint32_t> slab_count = 0;

spinlock<lock_rank::memory> pool_lock;
fiber* full = nullptr; // magazines, linked through the `context` of their first, which holds the magazine
std::uint32_t used_of_last_slab = fiber_slabs::fibers_per_slab; // blocks beyond were never touched

// Aligned to its own size, a power of two, as huge pages have to be; so much `more` follows. Null: no memory.
char* map_aligned(std::size_t bytes, std::size_t more) noexcept {
    void* const mapped = ::mmap(nullptr, 2 * bytes + more, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* const all = static_cast<char*>(mapped);
    std::size_t const before = (bytes - std::uintptr_t(all) % bytes) % bytes;
    if (before != 0) ::munmap(all, before);
    ::munmap(all + before + bytes + more, bytes - before);
    return all + before;
}

bool add_slab() noexcept {
    std::uint32_t const number = slab_count.load(std::memory_order_relaxed); // under the lock
    if (number == most_slabs) return false;
    char* const memory = map_aligned(bytes_of_blocks, bytes_of_waits);
    if (memory == nullptr) return false;
    // Who starts many fibers saves page faults and misses of the TLB; who does not, saves memory.
    if (number != 0) ::madvise(memory, bytes_of_blocks, MADV_HUGEPAGE);
    slabs[number].store(reinterpret_cast<fiber*>(memory),
                        std::memory_order_relaxed); // published by the count
    slab_count.store(number + 1, std::memory_order_release); // pairs with end_of_indices()
    used_of_last_slab = number == 0 ? fiber_slabs::first_index : 0;
    return true;
}

fiber* make_one() noexcept { // under the lock; null: no memory
    if (used_of_last_slab == fiber_slabs::fibers_per_slab && !add_slab()) return nullptr;
    std::uint32_t const number = slab_count.load(std::memory_order_relaxed) - 1; // under the lock
    std::uint32_t const place = used_of_last_slab++;
    fiber* const slab = slabs[number].load(std::memory_order_relaxed); // under the lock
    fiber* const made = new (slab + place) fiber;
    made->index = number * fiber_slabs::fibers_per_slab + place;
    return made;
}

// A child of fork() that was made while there was no run may begin one, also if other threads of its parent
// were dropping the last handles of tasks at that moment.
void before_fork() { pool_lock.lock_for_fork(); }
void after_fork() { pool_lock.unlock_after_fork(); }
[[maybe_unused]] int const watches_for_forks = ::pthread_atfork(before_fork, after_fork, after_fork);

static_assert(sizeof(fiber_magazine) <= fiber::inline_bytes);

fiber_magazine* held_by(fiber& first) noexcept {
    return std::launder(reinterpret_cast<fiber_magazine*>(first.storage));
}

struct thread_stock {
    fiber_cache cache;
    ~thread_stock();
};
constinit thread_local bool stock_is_gone = false;

thread_stock::~thread_stock() {
    cache.give_all();
    stock_is_gone = true;
}

[[gnu::noinline]] thread_stock* stock_of_thread() noexcept {
    if (stock_is_gone) return nullptr;
    thread_local thread_stock stock;
    return &stock;
}

} // namespace

fiber* fiber_at(std::uint32_t index) noexcept {
    auto const& slab = slabs[index / fiber_slabs::fibers_per_slab];
    // Whoever has the index was told after it was made.
    return slab.load(std::memory_order_relaxed) + index % fiber_slabs::fibers_per_slab; // ordered by that
}

std::uint32_t fiber_slabs::end_of_indices() noexcept {
    pool_lock.lock();
    std::uint32_t const count = slab_count.load(std::memory_order_acquire); // pairs with add_slab()
    std::uint32_t const used = used_of_last_slab;
    pool_lock.unlock();
    return count == 0 ? 0 : (count - 1) * fibers_per_slab + used;
}

fiber_magazine fiber_slabs::take() noexcept {
    fiber_magazine taken;
    pool_lock.lock();
    if (full != nullptr) {
        taken = *held_by(*full);
        full = static_cast<fiber*>(full->context);
    } else {
        while (taken.count < fiber_magazine::capacity) {
            fiber* const made = make_one();
            if (made == nullptr) break;
            taken.give(*made);
        }
    }
    pool_lock.unlock();
    return taken;
}

void fiber_slabs::give(fiber_magazine returned) noexcept {
    if (returned.count == 0) return;
    fiber& first = *returned.last_given();
    new (first.storage) fiber_magazine(returned);
    pool_lock.lock();
    first.context = full;
    full = &first;
    pool_lock.unlock();
}

fiber* fiber_slabs::take_for_thread() noexcept {
    thread_stock* const stock = stock_of_thread();
    if (stock != nullptr) return stock->cache.take();
    return take_one(); // the thread is ending: from a destructor of its variables
}

fiber* fiber_slabs::take_one() noexcept {
    fiber_magazine taken = take();
    if (taken.count == 0) return nullptr;
    fiber* const one = taken.take();
    give(taken);
    return one;
}

void fiber_slabs::give_one(fiber& block) noexcept {
    fiber_magazine single;
    single.give(block);
    give(single);
}

bool fiber_cache::reload() noexcept {
    if (previous_.count != 0)
        current_ = std::exchange(previous_, {});
    else
        current_ = fiber_slabs::take();
    return current_.count != 0;
}

void fiber_cache::unload() noexcept {
    fiber_slabs::give(previous_);
    previous_ = std::exchange(current_, {});
}

void fiber_cache::give_all() noexcept {
    fiber_slabs::give(std::exchange(current_, {}));
    fiber_slabs::give(std::exchange(previous_, {}));
}

} // namespace weft::detail
