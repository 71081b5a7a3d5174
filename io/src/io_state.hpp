#pragma once

#include <weft/runtime/detail/descriptor_word.hpp>
#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/detail/readiness_word.hpp>

#include <atomic>
#include <cstdint>

namespace weft::detail {

class epoll_poller;

/// What is known of one open descriptor: who waits for which direction, who is inside an operation,
/// and where it is registered. In slabs that are never unmapped, so an event that comes late finds it.
struct alignas(64) io_state {
    readiness_word<> read;
    readiness_word<> write;
    descriptor_word<> users;
    std::atomic<std::uint32_t> generation = 0;   // odd: in use. A late event carries an older one
    std::atomic<epoll_poller*> registered_with = nullptr;
    std::atomic<bool> hung_up = false;           // the peer closed its half: never trust a short read
    bool read_was_short = false;                 // the reader's: nothing more came with the last data
    int fd = -1;
    std::uint32_t index = 0;                     // in the slabs; never changes
    io_state* next_free = nullptr;
};

/// Null: no memory.
io_state* take_io_state(int fd) noexcept;
void give_io_state(io_state&) noexcept; // nobody is inside an operation any more

/// For an event: the state, if that life of it still goes on.
io_state* find_io_state(std::uint64_t event_data) noexcept;
std::uint64_t event_data_of(io_state const&) noexcept;

/// Descriptors that are open in the process, for leak checks.
std::uint32_t open_io_states() noexcept;

} // namespace weft::detail
