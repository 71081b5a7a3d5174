#pragma once

#include <utility>

namespace weft {

/// Owns a file descriptor, or none.
///
/// It closes the descriptor and does nothing else with it: whoever waits for it elsewhere must be
/// told first, by notify_closing().
///
/// Threads  a value
/// Errors   none; what close(2) says is ignored
class unique_fd {
public:
    unique_fd() noexcept = default;
    explicit unique_fd(int fd) noexcept : fd_(fd) {}
    unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}
    unique_fd& operator=(unique_fd&& other) noexcept {
        reset(other.release());
        return *this;
    }
    ~unique_fd() { reset(); }

    int get() const noexcept { return fd_; }
    int release() noexcept { return std::exchange(fd_, -1); }
    void reset(int fd = -1) noexcept;
    explicit operator bool() const noexcept { return fd_ >= 0; }

private:
    int fd_ = -1;
};

} // namespace weft
