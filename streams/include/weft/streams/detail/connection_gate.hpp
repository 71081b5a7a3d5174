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

    // A task that is about to be started, and that begins or will not be started: who wants to know the tasks
    // waits for those that have not begun.
    void announce_task() noexcept;
    void settle_task() noexcept;
    void wait_until_all_have_begun();
    void add_task(std::uint64_t id);
    void remove_task(std::uint64_t id) noexcept;
    std::vector<std::uint64_t> tasks() const;

    closable_wait newcomers; ///< closed where the server begins to drain

private:
    bool is_free_for(wait_list& list) const noexcept { // under the lock
        if (&list == &empty_) return inside_ == 0;
        if (&list == &all_begun_) return announced_ == 0;
        return inside_ < most_;
    }
    void wake_all(wait_list&) noexcept; // under the lock
    void wait_for(wait_list&, char const* what); // a state that keeps nobody's place
    void wait_in(wait_list&, char const* what);

    std::size_t const most_;
    std::size_t inside_ = 0;
    std::size_t announced_ = 0; // tasks that have not begun. Under the queue's lock
    wait_queue queue_;          // those who wait for a place
    wait_list empty_;           // those who wait for the end; under the same lock
    wait_list all_begun_;       // and those who wait for all tasks to begin;  "
    mutable std::mutex mutex_;
    std::set<std::uint64_t> tasks_;
};

/// A place behind the gate, taken and given back by its owner, who is one task; given back at the
/// latest when it is destroyed. Without a gate there is always one.
class connection_place {
public:
    explicit connection_place(connection_gate* gate) noexcept : gate_(gate) {}
    connection_place(connection_place&& other) noexcept
        : gate_(other.gate_), taken_(std::exchange(other.taken_, false)),
          is_announced_(std::exchange(other.is_announced_, false)) {}
    connection_place& operator=(connection_place&&) = delete;
    ~connection_place() {
        settle();
        give_back();
    }

    // Without effect if it is taken already.
    void wait();
    bool try_take() noexcept;
    void take_beyond() noexcept;

    void give_back() noexcept;

    void announce_task() noexcept; ///< that will handle the connection
    /// Names the calling task as the one that handles the connection, while the result exists.
    class counted_task {
    public:
        explicit counted_task(connection_place&);
        ~counted_task();
        counted_task(counted_task const&) = delete;
        counted_task& operator=(counted_task const&) = delete;

    private:
        connection_gate* gate_;
        std::uint64_t id_ = 0;
    };
    [[nodiscard]] counted_task count_this_task() { return counted_task(*this); }

private:
    void settle() noexcept {
        if (std::exchange(is_announced_, false)) gate_->settle_task();
    }

    connection_gate* gate_;
    bool taken_ = false;
    bool is_announced_ = false;
};

} // namespace weft::detail
