#include "io_state.hpp"

#include <new>

#include <sys/mman.h>

namespace weft::detail {

namespace {

constexpr std::uint32_t states_per_slab = 1024;
constexpr std::uint32_t most_slabs = 1 << 14;

std::atomic<io_state*> slabs[most_slabs];
spinlock<lock_rank::memory> slab_lock;
io_state* free_states = nullptr;
std::uint32_t made = 0;
std::atomic<std::uint32_t> open_count = 0;

io_state* make_state() noexcept { // under the lock
    std::uint32_t const slab = made / states_per_slab;
    if (slab == most_slabs) return nullptr;
    io_state* memory = slabs[slab].load(std::memory_order_relaxed); // written under the lock
    if (memory == nullptr) {
        void* const mapped = ::mmap(nullptr, states_per_slab * sizeof(io_state), PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) return nullptr;
        memory = static_cast<io_state*>(mapped);
        slabs[slab].store(memory, std::memory_order_release); // pairs with find_io_state()
    }
    auto* const state = new (memory + made % states_per_slab) io_state;
    state->index = made++;
    return state;
}

} // namespace

io_state* take_io_state(int fd) noexcept {
    slab_lock.lock();
    io_state* state = free_states;
    if (state != nullptr)
        free_states = state->next_free;
    else
        state = make_state();
    slab_lock.unlock();
    if (state == nullptr) return nullptr;
    state->fd = fd;
    state->read.reset(readiness_word<>::ready); // unknown: the first system call finds out
    state->write.reset(readiness_word<>::ready);
    state->registered_with.store(nullptr, std::memory_order_relaxed); // nobody else knows it
    state->hung_up.store(false, std::memory_order_relaxed);           //  "
    state->read_was_short = false;
    state->generation.fetch_add(1, std::memory_order_release); // pairs with find_io_state(); odd now
    state->users.open();
    open_count.fetch_add(1, std::memory_order_relaxed); // only counts
    return state;
}

void give_io_state(io_state& state) noexcept {
    state.generation.fetch_add(1, std::memory_order_release); // pairs with find_io_state(); even now
    open_count.fetch_sub(1, std::memory_order_relaxed);       // only counts
    slab_lock.lock();
    state.next_free = free_states;
    free_states = &state;
    slab_lock.unlock();
}

std::uint64_t event_data_of(io_state const& state) noexcept {
    return std::uint64_t(state.generation.load(std::memory_order_relaxed)) << 32 | state.index;
}

io_state* find_io_state(std::uint64_t event_data) noexcept {
    auto const index = std::uint32_t(event_data);
    io_state* const slab = slabs[index / states_per_slab].load(std::memory_order_acquire); // make_state()
    io_state& state = slab[index % states_per_slab];
    auto const generation = state.generation.load(std::memory_order_acquire); // pairs with give
    return generation == std::uint32_t(event_data >> 32) ? &state : nullptr;
}

std::uint32_t open_io_states() noexcept {
    return open_count.load(std::memory_order_relaxed); // only counts
}

} // namespace weft::detail
