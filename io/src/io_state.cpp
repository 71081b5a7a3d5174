#include "io_state.hpp"

#include "epoll_poller.hpp"

#include <weft/runtime/detail/fork.hpp>

#include <mutex>
#include <new>
#include <shared_mutex>
#include <stdexcept>

#include <pthread.h>
#include <sys/mman.h>
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace weft::detail {

namespace {

constexpr std::uint32_t states_per_slab = 1024;
constexpr std::uint32_t most_slabs = 1 << 14;

std::atomic<io_state*> slabs[most_slabs];
spinlock<lock_rank::memory> slab_lock;
io_state* free_states = nullptr;
std::uint32_t made = 0;
std::atomic<std::uint32_t> open_count = 0;

// Shared: somebody registers or unregisters. Alone: a poller goes away, or the process is doubled.
std::shared_mutex registrations;

// A child of fork() that was made while there was no run may begin one, also if other threads of its parent
// were opening or closing at that moment.
void before_fork() {
    registrations.lock();
    slab_lock.lock_for_fork();
}

void after_fork_here() {
    slab_lock.unlock_after_fork();
    registrations.unlock();
}

void after_fork_there() {
    slab_lock.unlock_after_fork();
#if defined(__SANITIZE_THREAD__) // which sees no unlocking in a constructor
    __tsan_mutex_pre_unlock(&registrations, 0);
    __tsan_mutex_post_unlock(&registrations, 0);
#endif
    new (&registrations) std::shared_mutex; // knows its owner by a thread's number, which is another here
}

[[maybe_unused]] int const watches_for_forks = (watch_io_states_for_forks(), 0); // as the library is loaded

io_state* make_state() noexcept { // under the lock
    std::uint32_t const slab = made / states_per_slab;
    if (slab == most_slabs) return nullptr;
    io_state* memory = slabs[slab].load(std::memory_order_relaxed); // written under the lock
    if (memory == nullptr) {
        void* const mapped = ::mmap(nullptr, states_per_slab * sizeof(io_state),
                                    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) return nullptr;
        memory = static_cast<io_state*>(mapped);
        slabs[slab].store(memory, std::memory_order_release); // pairs with find_io_state()
    }
    auto* const state = new (memory + made % states_per_slab) io_state;
    state->index = made++;
    return state;
}

io_state& state_at(std::uint32_t index) noexcept { // one that was made
    io_state* const slab =
        slabs[index / states_per_slab].load(std::memory_order_acquire); // pairs with make_state()
    return slab[index % states_per_slab];
}

} // namespace

void watch_io_states_for_forks() {
    [[maybe_unused]] static int const registered =
        ::pthread_atfork(before_fork, after_fork_here, after_fork_there);
}

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
    state->given_back.store(false, std::memory_order_relaxed);        //  "
    state->read_was_short = false;
    state->writing_is_awaited.store(false, std::memory_order_relaxed); // nobody else knows it
    state->trusts_short_reads = false;
    state->broken.store(0, std::memory_order_relaxed);     // nobody else knows it
    state->references.store(2, std::memory_order_relaxed); //  "
    state->generation.fetch_add(1,
                                std::memory_order_release); // pairs with find_io_state(); odd now
    state->users.open();
    open_count.fetch_add(1, std::memory_order_relaxed); // only counts
    return state;
}

void release_io_state(io_state& state) noexcept {
    if (state.references.fetch_sub(1, std::memory_order_acq_rel) != 1) // the other's last use
        return;
    if (is_forked_child()) return; // the lock may be nobody's; nothing is opened there any more
    state.generation.fetch_add(1,
                               std::memory_order_release); // pairs with find_io_state(); even now
    open_count.fetch_sub(1, std::memory_order_relaxed);       // only counts
    slab_lock.lock();
    state.next_free = free_states;
    free_states = &state;
    slab_lock.unlock();
}

// Who finds it registered, or about to be, and is the first to wait for writing changes what it is registered
// for: an event of its own if the descriptor is ready. If the other one has not come to EPOLL_CTL_ADD, there is
// nothing yet to be changed; then it looks again after that, and sees the mark.
void register_once(io_state& state, bool for_writing) {
    bool is_first_to_write = for_writing &&
                             !state.writing_is_awaited.load(std::memory_order_relaxed); // decided below
    if (!is_first_to_write &&
        state.registered_with.load(std::memory_order_relaxed) != nullptr) // else the CAS decides
        return;
    auto* const here = dynamic_cast<epoll_poller*>(poller_for_registration());
    if (here == nullptr) throw std::logic_error("this backend cannot wait for file descriptors");
    std::shared_lock const guard(registrations);
    if (is_first_to_write) // marked only now: nothing fails in between
        is_first_to_write = !state.writing_is_awaited.exchange(true, std::memory_order_seq_cst); // add()
    epoll_poller* at = nullptr;
    if (!state.registered_with.compare_exchange_strong(at, here,
                                                       std::memory_order_acq_rel)) { // unregister()
        if (is_first_to_write) at->report_writing(state.fd, state);
        return; // the other direction's waiter does it: what is ready then comes as an event
    }
    try {
        here->add(state.fd, state);
    } catch (...) {
        state.registered_with.store(nullptr, std::memory_order_release); // pairs with the CAS
        wake_waiters(state, wake_reason::event); // who relied on us registers for itself
        throw;
    }
}

void unregister(io_state& state) noexcept {
    std::shared_lock const guard(registrations);
    epoll_poller* const at = state.registered_with.exchange(
        nullptr, std::memory_order_acq_rel); // pairs with the CAS of register_once()
    if (at != nullptr) at->remove(state.fd);
}

void wake_waiters(io_state& state, wake_reason reason) noexcept {
    for (readiness_word<>* const word : {&state.read, &state.write})
        if (auto const waiter = word->signal(); waiter != readiness_word<>::nothing)
            wake(wait_ref::decode(waiter), reason);
}

void forget_registrations(epoll_poller& going) noexcept {
    std::lock_guard const guard(registrations);
    slab_lock.lock();
    std::uint32_t const count = made;
    slab_lock.unlock();
    for (std::uint32_t index = 0; index < count; ++index) {
        io_state& state = state_at(index);
        if (state.registered_with.load(std::memory_order_relaxed) != &going) continue; // the lock
        state.registered_with.store(nullptr, std::memory_order_relaxed);               //  "
        wake_waiters(state, wake_reason::event);
    }
}

std::uint64_t event_data_of(io_state const& state) noexcept {
    std::uint64_t const generation = state.generation.load(std::memory_order_relaxed); // we hold it
    return generation << 32 | state.index;
}

io_state* find_io_state(std::uint64_t event_data) noexcept {
    io_state& state = state_at(std::uint32_t(event_data));
    auto const generation = state.generation.load(std::memory_order_acquire); // pairs with give
    return generation == std::uint32_t(event_data >> 32) ? &state : nullptr;
}

std::uint32_t open_io_states() noexcept {
    return open_count.load(std::memory_order_relaxed); // only counts
}

} // namespace weft::detail
