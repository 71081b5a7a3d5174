#pragma once

#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/streams/detail/closable_wait.hpp>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

namespace weft::detail {

/// Counts the connections of a server, and lets no more in than allowed.
class connection_gate {
public:
    explicit connection_gate(std::size_t most); // Errors: std::invalid_argument
    connection_gate(connection_gate const&) = delete;
    connection_gate& operator=(connection_gate const&) = delete;

    void enter();                 // waits for a place
    bool try_enter() noexcept;    // not past those who wait
    void enter_beyond() noexcept; // there is one more than allowed then
    void leave() noexcept;
    void wait_until_empty();

    void add_task(std::uint64_t id);
    void remove_task(std::uint64_t id) noexcept;
    std::vector<std::uint64_t> tasks() const;

    closable_wait newcomers; ///< closed where the server begins to drain

private:
    bool is_free_for(wait_list& list) const noexcept { // under the lock
        return &list == &empty_ ? inside_ == 0 : inside_ < most_;
    }
    void wait_in(wait_list&, char const* what);

    std::size_t const most_;
    std::size_t inside_ = 0;
    wait_queue queue_; // those who wait for a place
    wait_list empty_;  // those who wait for the end; under the same lock
    mutable std::mutex mutex_;
    std::set<std::uint64_t> tasks_;
};

/// A place behind the gate, taken and given back by its owner, who is one task; given back at the
/// latest when it is destroyed. Without a gate there is always one.
class connection_place {
public:
    explicit connection_place(connection_gate* gate) noexcept : gate_(gate) {}
    connection_place(connection_place&& other) noexcept
        : gate_(other.gate_), taken_(std::exchange(other.taken_, false)) {}
    connection_place& operator=(connection_place&&) = delete;
    ~connection_place() { give_back(); }

    // Without effect if it is taken already.
    void wait();
    bool try_take() noexcept;
    void take_beyond() noexcept;

    void give_back() noexcept;

    /// Names the calling task as the one that handles the connection, while the result exists.
    class counted_task {
    public:
        explicit counted_task(connection_gate*);
        ~counted_task();
        counted_task(counted_task const&) = delete;
        counted_task& operator=(counted_task const&) = delete;

    private:
        connection_gate* gate_;
        std::uint64_t id_ = 0;
    };
    [[nodiscard]] counted_task count_this_task() const { return counted_task(gate_); }

private:
    connection_gate* gate_;
    bool taken_ = false;
};

} // namespace weft::detail
