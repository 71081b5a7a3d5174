#pragma once

#include "io_state.hpp"

#include <weft/runtime/detail/poller.hpp>

#include <atomic>
#include <cstdint>

#include <sys/epoll.h>

namespace weft::detail {

/// epoll behind the poller's contract: edge-triggered, each descriptor registered once, in the
/// poller of a worker that had time left when it was first waited for: for reading, and for writing once that is
/// waited for.
class epoll_poller final : public poller {
public:
    epoll_poller();
    ~epoll_poller() override;

    unsigned collect(duration at_most, caller) override;
    void await(duration at_most) override;
    void dispatch() noexcept override;
    void interrupt() noexcept override;
    bool has_events() const noexcept override;
    bool is_used() const noexcept override {
        return registered_.load(std::memory_order_relaxed) != 0; // a hint
    }

    /// Any thread. Errors: std::system_error.
    void add(int fd, io_state&);
    /// From now on also events of writing; nothing, if add() is still to come.
    void report_writing(int fd, io_state&) noexcept;
    void remove(int fd) noexcept;

private:
    static constexpr int most_events = 128;

    int epoll_ = -1;
    int wakeup_ = -1; // an eventfd
    std::atomic<bool> interrupted_ = false;
    std::atomic<std::uint32_t> registered_ = 0;
    unsigned count_ = 0; // of events_
    ::epoll_event events_[most_events];
};

} // namespace weft::detail
