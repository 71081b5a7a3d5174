#include "stack_pool.hpp"

#include "context_switch.hpp"
#include "kept_for_ever.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace weft::detail {

namespace {

#ifndef MADV_GUARD_INSTALL
constexpr int MADV_GUARD_INSTALL = 102; // Linux 6.13; newer than Debian 12's headers
#endif

constexpr std::size_t slab_bytes = std::size_t(64) << 20;
constexpr std::uint32_t guards_at_once = 64; // one system call guards so many stacks
constexpr std::uint32_t most_slabs = 1 << 15;
// The top of each stack is shifted by its slot, so that equal frames of neighbours do not compete for
// the same cache sets; eight steps give most of the gain and still fit the top page.
constexpr std::uint32_t colours = 8;
constexpr std::size_t colour_step = 64;

bool kernel_has_guard_markers() noexcept {
    std::size_t const page = stack_classes::guard_size;
    void* const probe =
        ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe == MAP_FAILED) return false;
    bool const accepted = ::madvise(probe, page, MADV_GUARD_INSTALL) == 0;
    ::munmap(probe, page);
    return accepted;
}

// Protected pages split mappings: two for each stack. Others need mappings, too.
long most_protected_stacks() noexcept {
    long limit = 65530;
    if (std::FILE* const file = std::fopen("/proc/sys/vm/max_map_count", "re")) {
        if (std::fscanf(file, "%ld", &limit) != 1) limit = 65530;
        std::fclose(file);
    }
    return limit / 2 - 256;
}

std::atomic<long> protected_stacks = 0;
std::atomic<bool> guard_refused = false; // the last time that something was

} // namespace

guard_method current_guard_method() noexcept {
    static guard_method const chosen =
        kernel_has_guard_markers() ? guard_method::guard_markers : guard_method::protected_pages;
    return chosen;
}

/// One mapping of equal stacks. Slots are used from the low end on; a slot whose memory was given back
/// has no description any more and is remembered by number.
class stack_slab {
public:
    stack_slab(char* memory, unsigned size_class) noexcept
        : memory_(memory), size_class_(size_class), slots_(slots_of(size_class)) {}

    // The guard comes on top of a power of two: at a distance of 64 pages all stacks would compete for
    // a few sets of the second-level TLB, at 65 they use all of them.
    static std::size_t stride_of(unsigned size_class) noexcept {
        return stack_classes::bytes_of(size_class) + stack_classes::guard_size;
    }
    static std::uint32_t slots_of(unsigned size_class) noexcept {
        return std::uint32_t(std::max(slab_bytes, stride_of(size_class)) / stride_of(size_class));
    }
    std::size_t stride() const noexcept { return stride_of(size_class_); }
    std::size_t bytes() const noexcept { return stride() * slots_; }
    char* memory() const noexcept { return memory_; }
    unsigned size_class() const noexcept { return size_class_; }

    stack* take() noexcept { // under the depot's lock
        if (!returned_.empty()) {
            std::uint32_t const slot = returned_.back();
            returned_.pop_back();
            return describe(slot);
        }
        if (used_ == slots_) return nullptr;
        if (used_ == guarded_ && !guard_more()) return nullptr;
        return describe(used_++);
    }
    bool is_exhausted() const noexcept { return used_ == slots_ && returned_.empty(); }

    // Everything was given back: start over, guards stay. Under the depot's lock.
    void release_all() noexcept {
        ::madvise(memory_, std::size_t(used_) * stride(), MADV_DONTNEED);
        used_ = 0;
        returned_.clear();
        idle = 0;
    }
    bool release(stack& of) noexcept { // under the depot's lock; false: no room to remember it
        std::uint32_t const slot = of.slot;
        if (returned_.size() == returned_.capacity()) {
            try {
                returned_.reserve(std::min<std::size_t>(slots_, 2 * returned_.size() + 16));
            } catch (std::bad_alloc const&) {
                return false;
            }
        }
        char* const low = memory_ + slot * stride() + stack_classes::guard_size;
        ::madvise(low, stride() - stack_classes::guard_size, MADV_DONTNEED);
        returned_.push_back(slot);
        return true;
    }
    std::uint32_t used() const noexcept { return used_; }
    std::uint32_t returned() const noexcept { return std::uint32_t(returned_.size()); }

    std::uint32_t idle = 0; // its stacks in the depot, described; under the depot's lock
    bool whole = false;     // nothing of it is in use; under the depot's lock

private:
    stack* describe(std::uint32_t slot) noexcept {
        char* const low = memory_ + slot * stride();
        char* const top = low + stride() - (slot % colours) * colour_step - sizeof(stack);
        auto* const described = new (reinterpret_cast<char*>(std::uintptr_t(top) & ~std::uintptr_t(63)))
            stack{};
        described->lowest = low + stack_classes::guard_size;
        described->size = std::size_t(described->top() - described->lowest);
        described->slab = this;
        described->slot = slot;
        described->size_class = std::uint8_t(size_class_);
        return described;
    }

    bool guard_more() noexcept {
        std::uint32_t const more = std::min(guards_at_once, slots_ - guarded_);
        if (current_guard_method() == guard_method::guard_markers) {
            for (std::uint32_t slot = guarded_; slot < guarded_ + more; ++slot)
                if (::madvise(memory_ + slot * stride(), stack_classes::guard_size,
                              MADV_GUARD_INSTALL) != 0) {
                    guarded_ = slot;
                    return used_ < guarded_;
                }
            guarded_ += more;
            return true;
        }
        // One at a time: each costs mappings, of which there is a limited number.
        static long const most = most_protected_stacks();
        if (protected_stacks.fetch_add(1, std::memory_order_relaxed) >= most || // only counts
            ::mprotect(memory_ + guarded_ * stride(), stack_classes::guard_size, PROT_NONE) != 0) {
            protected_stacks.fetch_sub(1, std::memory_order_relaxed); // only counts
            guard_refused.store(true, std::memory_order_relaxed);     // for a message
            return false;
        }
        guard_refused.store(false, std::memory_order_relaxed); // as above
        ++guarded_;
        return true;
    }

    char* memory_;
    unsigned size_class_;
    std::uint32_t slots_;
    std::uint32_t used_ = 0;
    std::uint32_t guarded_ = 0;
    std::vector<std::uint32_t> returned_;
};

namespace {

struct slab_list {
    std::vector<stack_slab*> slabs;
    stack* idle = nullptr;
    std::size_t idle_count = 0;
    std::size_t least_idle = 0; // since the last release
    std::size_t first_with_room = 0;
};

std::mutex depot_lock; // held over system calls: not a spinlock
kept_for_ever<slab_list[stack_classes::count]> kept_lists;
slab_list (&lists)[stack_classes::count] = kept_lists.value;
std::atomic<std::size_t> in_use = 0;
std::atomic<std::size_t> idle = 0; // in the lists; changed under the lock

// For the fault handler: filled from the front, never shrunk.
std::atomic<stack_slab*> all_slabs[most_slabs];
std::atomic<std::uint32_t> all_slab_count = 0;

stack_slab* add_slab(unsigned size_class) noexcept {
    std::uint32_t const number = all_slab_count.load(std::memory_order_relaxed); // under the lock
    if (number == most_slabs) return nullptr;
    std::size_t const bytes = stack_slab::slots_of(size_class) * stack_slab::stride_of(size_class);
    void* const memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    ::madvise(memory, bytes, MADV_NOHUGEPAGE); // a huge page would make every stack 2 MiB big
    auto* const made = new (std::nothrow) stack_slab(static_cast<char*>(memory), size_class);
    if (made == nullptr) {
        ::munmap(memory, bytes);
        return nullptr;
    }
    try {
        lists[size_class].slabs.push_back(made);
    } catch (std::bad_alloc const&) {
        delete made;
        ::munmap(memory, bytes);
        return nullptr;
    }
    all_slabs[number].store(made, std::memory_order_relaxed); // published by the count
    all_slab_count.store(number + 1, std::memory_order_release); // pairs with is_guard()
    return made;
}

stack* take_one(slab_list& list, unsigned size_class) noexcept { // under the lock
    if (stack* const taken = list.idle) {
        list.idle = taken->next;
        --list.idle_count;
        list.least_idle = std::min(list.least_idle, list.idle_count);
        idle.fetch_sub(1, std::memory_order_relaxed); // only counts
        --taken->slab->idle;
        return taken;
    }
    while (list.first_with_room < list.slabs.size()) {
        if (stack* const made = list.slabs[list.first_with_room]->take()) return made;
        if (!list.slabs[list.first_with_room]->is_exhausted()) return nullptr; // no guard to be had
        ++list.first_with_room;
    }
    if (stack_slab* const added = add_slab(size_class)) return added->take();
    guard_refused.store(false, std::memory_order_relaxed); // for a message: it was not that
    return nullptr;
}

constexpr std::size_t most_released_at_once = 256; // others wait for the lock meanwhile

void release_from(slab_list& list, bool all) noexcept { // under the lock
    for (stack_slab* slab : list.slabs)
        slab->whole = all && slab->used() != 0 && slab->idle + slab->returned() == slab->used();
    std::size_t wanted = all ? list.idle_count : std::min(list.least_idle, most_released_at_once);
    std::size_t kept_count = 0;
    stack* kept = nullptr;
    for (stack* current = std::exchange(list.idle, nullptr); current != nullptr;) {
        stack* const next = current->next;
        stack_slab& slab = *current->slab;
        if (slab.whole || wanted > 0) destroy_sanitizer_fiber(*current);
        if (slab.whole) {
            // its description goes with the slab, below
        } else if (wanted > 0 && slab.release(*current)) {
            --wanted;
            --slab.idle;
        } else {
            current->next = kept;
            kept = current;
            ++kept_count;
        }
        current = next;
    }
    for (stack_slab* slab : list.slabs)
        if (std::exchange(slab->whole, false)) slab->release_all();
    idle.fetch_sub(list.idle_count - kept_count, std::memory_order_relaxed); // only counts
    list.idle = kept;
    list.idle_count = list.least_idle = kept_count;
    list.first_with_room = 0;
}

} // namespace

unsigned stack_classes::of(std::size_t bytes) noexcept {
    if (bytes > largest) return count;
    std::size_t const rounded = std::bit_ceil(std::max(bytes, smallest));
    return unsigned(std::countr_zero(rounded) - std::countr_zero(smallest));
}

stack* stack_depot::take(unsigned size_class, unsigned wanted, unsigned& count) noexcept {
    stack* chain = nullptr;
    count = 0;
    std::lock_guard const guard(depot_lock);
    while (count < wanted) {
        stack* const taken = take_one(lists[size_class], size_class);
        if (taken == nullptr) break;
        taken->next = chain;
        chain = taken;
        ++count;
    }
    in_use.fetch_add(count, std::memory_order_relaxed); // only counts
    return chain;
}

void stack_depot::give(stack* chain) noexcept {
    std::lock_guard const guard(depot_lock);
    while (chain != nullptr) {
        stack* const next = chain->next;
        slab_list& list = lists[chain->size_class];
        chain->next = list.idle;
        list.idle = chain;
        ++list.idle_count;
        ++chain->slab->idle;
        idle.fetch_add(1, std::memory_order_relaxed);   // only counts
        in_use.fetch_sub(1, std::memory_order_relaxed); // only counts
        chain = next;
    }
}

void stack_depot::release_idle_memory(bool all) noexcept {
    std::lock_guard const guard(depot_lock);
    for (slab_list& list : lists)
        if (list.idle != nullptr) release_from(list, all);
}

std::size_t stack_depot::idle_stacks() noexcept {
    return idle.load(std::memory_order_relaxed); // only counts
}

char const* stack_depot::shortage() noexcept {
    return guard_refused.load(std::memory_order_relaxed) // others may have set it since
               ? ": no mapping is left for its guard (vm.max_map_count)"
               : "";
}

std::size_t stack_depot::stacks_in_use() noexcept {
    return in_use.load(std::memory_order_relaxed); // only counts
}

bool stack_depot::is_guard(void const* address, std::size_t& stack_size) noexcept {
    auto const* const where = static_cast<char const*>(address);
    std::uint32_t const count = all_slab_count.load(std::memory_order_acquire); // pairs with add_slab()
    for (std::uint32_t number = 0; number < count; ++number) {
        stack_slab const& slab = *all_slabs[number].load(std::memory_order_relaxed); // by the count
        if (where < slab.memory() || where >= slab.memory() + slab.bytes()) continue;
        stack_size = slab.stride() - stack_classes::guard_size;
        return std::size_t(where - slab.memory()) % slab.stride() < stack_classes::guard_size;
    }
    return false;
}

bool stack_cache::refill(bin& own, unsigned size_class) noexcept {
    std::size_t const wanted = std::min<std::size_t>(batch, stack_slab::slots_of(size_class)); // of no more than a slab
    own.first = stack_depot::take(size_class, unsigned(wanted), own.count);
    return own.first != nullptr;
}

void stack_cache::spill(bin& own, unsigned keep) noexcept {
    if (own.count <= keep) return;
    stack* last = own.first; // the hottest stay
    if (keep == 0) {
        stack_depot::give(std::exchange(own.first, nullptr));
    } else {
        for (unsigned step = 1; step < keep; ++step)
            last = last->next;
        stack_depot::give(std::exchange(last->next, nullptr));
    }
    own.count = keep;
}

void stack_cache::give_all() noexcept {
    for (bin& own : bins_)
        spill(own, 0);
}

} // namespace weft::detail
