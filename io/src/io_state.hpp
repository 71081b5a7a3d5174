#pragma once

#include <weft/runtime/detail/descriptor_word.hpp>
#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/detail/readiness_word.hpp>

#include <atomic>
#include <cstdint>

namespace weft::detail {

class epoll_poller;

/// What is known of one open descriptor: who waits for which direction, who is inside an operation,
/// and where it is registered. In slabs that are never unmapped, so an event that comes late finds
/// it.
struct alignas(64) io_state {
    readiness_word<> read;
    readiness_word<> write;
    descriptor_word<> users;
    std::atomic<std::uint32_t> generation = 0;   // odd: in use. A late event carries an older one
    std::atomic<epoll_poller*> registered_with = nullptr;
    std::atomic<bool> hung_up = false; // the peer closed its half: never trust a short read
    bool read_was_short = false;       // the reader's: nothing more came with the last data
    std::atomic<bool> writing_is_awaited = false; // since it was opened
    int fd = -1;
    std::uint32_t index = 0;                     // in the slabs; never changes
    std::atomic<std::uint32_t> references = 0;   // the open descriptor and the object that owns it
    std::atomic<int> broken = 0;                 // the errno that ended the use of it
    bool trusts_short_reads = false;             // see open_descriptor.cpp
    std::atomic<bool> given_back = false;        // the number, to the kernel
    io_state* next_free = nullptr;
};
static_assert(sizeof(io_state) == 64);

/// Null: no memory. Two references: the open descriptor's and its owner's.
io_state* take_io_state(int fd) noexcept;
void release_io_state(io_state&) noexcept; // gives up one

/// Registers with the poller of a worker that has time left, unless it is registered already. Events of
/// writing come from the first time on that it is waited for: a descriptor is mostly ready for it when it is
/// registered, which would be an event for nobody. Errors: std::system_error
void register_once(io_state&, bool for_writing);
void unregister(io_state&) noexcept;

/// Ends the waits of reader and writer; who comes to wait at the same time tries again first.
void wake_waiters(io_state&, wake_reason) noexcept;

/// Before a poller goes: what is registered with it is so no longer, and those who wait try again.
void forget_registrations(epoll_poller&) noexcept;

/// For an event: the state, if that life of it still goes on.
io_state* find_io_state(std::uint64_t event_data) noexcept;
std::uint64_t event_data_of(io_state const&) noexcept;

/// From here on fork() takes the locks of what is above, so that none is left locked in the child. Who calls it
/// while he holds a lock of his own lets fork() take that one first: handlers that are registered later come
/// earlier. Does nothing the second time.
void watch_io_states_for_forks();

/// Descriptors that are open in the process, for leak checks.
std::uint32_t open_io_states() noexcept;

} // namespace weft::detail
