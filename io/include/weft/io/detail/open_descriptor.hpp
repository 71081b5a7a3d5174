#pragma once

#include <weft/io/descriptor.hpp>
#include <weft/runtime/detail/parking.hpp>

#include <cerrno>
#include <cstdint>

#include <sys/types.h>

namespace weft::detail {

struct io_state;

/// What an operation keeps others from doing at the same time.
enum class access : std::uint8_t { look = 0, read = 2, write = 4, both = 6 };

/// Owns a non-blocking descriptor that fibers wait on; the ground that sockets and pipes stand on.
///
/// Operations enter by a descriptor_use. close() wakes those that wait with closed_resource_error;
/// the last one out gives the number back to the kernel, so nobody ever uses a number that has a
/// new owner. Once closed it stays so, and says so.
///
/// Threads  any; moved and destroyed by its owner, also while operations are on their way out
/// Errors   std::system_error (ENOMEM: no memory; the descriptor is left alone)
class open_descriptor {
public:
    open_descriptor() noexcept = default;
    /// `stops_only_when_empty`: a read that gives less than asked for has taken everything (TCP).
    explicit open_descriptor(unique_fd&&, bool stops_only_when_empty = false);
    open_descriptor(open_descriptor&& other) noexcept
        : state_(std::exchange(other.state_, nullptr)) {}
    open_descriptor& operator=(open_descriptor&& other) noexcept {
        if (this != &other) {
            give_up();
            state_ = std::exchange(other.state_, nullptr);
        }
        return *this;
    }
    ~open_descriptor() { give_up(); }

    /// Never waits; idempotent.
    void close() noexcept;
    /// The same, and lets other tasks run until those who were inside have left and the number is the
    /// kernel's again: an address may then be bound anew. Not a cancellation point. Outside a task it
    /// does not wait.
    void close_completely();

private:
    friend class descriptor_use;
    void give_up() noexcept;

    io_state* state_ = nullptr;
};

/// One operation on an open descriptor: while it exists, the number stays ours.
///
///     descriptor_use use(descriptor, access::read, "reading from");
///     enter_blocking_call("socket receive");
///     ssize_t const count = use.retry("socket receive", [&](int fd) { return ::recv(fd, ...); });
///     if (count < 0) ...-count is the errno...
///
/// Cancellation  retry() is a cancellation point when it waits
/// Errors        closed_resource_error, busy_resource_error
class descriptor_use {
public:
    descriptor_use(open_descriptor const&, access, char const* action);
    descriptor_use(descriptor_use const&) = delete;
    descriptor_use& operator=(descriptor_use const&) = delete;
    ~descriptor_use();

    int fd() const noexcept { return fd_; }

    /// Repeats a system call until it is not interrupted and need not wait; gives its result, or
    /// minus its errno. It waits for the direction that the access names.
    template <class Call> ssize_t retry(char const* what, Call&& call) {
        for (;;) {
            prepare();
            ssize_t const result = call(fd_);
            if (result >= 0) return result;
            int const error = errno; // read at once: wait() may continue on another thread
            if (error == EAGAIN || error == EWOULDBLOCK)
                wait(what);
            else if (error != EINTR)
                return -ssize_t(error);
        }
    }

    /// Before a system call that may say EAGAIN: consumes what is known. Errors:
    /// closed_resource_error
    void prepare();
    /// After EAGAIN: until it is worth while to prepare() and try again.
    void wait(char const* what);

    /// Whether the last read took all there was, and nothing has been heard of since.
    bool expects_nothing() const noexcept;
    void note_read(std::size_t asked, std::size_t got) noexcept;

    /// The errno of a failure that lasts, or 0.
    int broken() const noexcept;
    void set_broken(int error) noexcept;

private:
    io_state* state_;
    open_descriptor const* of_; // to be prefetched only: it may be gone
    int fd_;
    access access_;
};

} // namespace weft::detail
