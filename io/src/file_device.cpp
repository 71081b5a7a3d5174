#include "file_device.hpp"

#include <weft/io/detail/pipe_signal.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <cwchar>
#include <exception>
#include <limits>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <stdio_ext.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace weft::detail {

namespace {

[[noreturn]] void fail(int error, char const* what, std::string const& label) {
    throw std::system_error(error, std::system_category(),
                            std::string("cannot ") + what + " " + label);
}

// DONT_SYNC: what is known here will do, a server need not be asked.
bool is_regular(int fd) {
    struct ::statx status {};
    return ::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &status) == 0 &&
           (status.stx_mode & S_IFMT) == S_IFREG;
}

std::uint64_t bytes_ahead(int fd) {
    struct ::stat status {};
    ::off_t const at = ::lseek(fd, 0, SEEK_CUR);
    if (at < 0 || ::fstat(fd, &status) != 0 || status.st_size <= at) return 0;
    return std::uint64_t(status.st_size - at);
}

void wait_for(int fd, short events) {
    ::pollfd wanted{fd, events, 0};
    ::poll(&wanted, 1, -1);
}

// A descriptor that was lent may be non-blocking: the thread waits for it.
template <class Call>
ssize_t insist(int fd, short events, char const* what, std::string const& label, Call call) {
    for (;;) {
        ssize_t const count = call();
        if (count >= 0) return count;
        if (errno == EAGAIN)
            wait_for(fd, events);
        else if (errno != EINTR)
            fail(errno, what, label);
    }
}

std::size_t write_some(int fd, bytes_view data, bool regular, std::string const& label) {
    auto const write = [&] { return ::write(fd, data.data(), data.size()); };
    ssize_t const count = insist(fd, POLLOUT, "write to", label, [&] {
        return regular ? write() : without_pipe_signal(data.size(), write);
    });
    if (count == 0 && !data.empty()) fail(EIO, "write to", label); // some drivers do: trying again would not end
    return std::size_t(count);
}

void truncate_descriptor(int fd, std::uint64_t size, std::string const& label) {
    while (::ftruncate(fd, ::off_t(size)) != 0)
        if (errno != EINTR) fail(errno, "truncate", label);
}

class descriptor_device final : public file_device {
public:
    descriptor_device(int fd, bool owned, std::string label)
        : fd_(fd), owned_(owned), regular_(is_regular(fd)),
          seekable_(::lseek(fd, 0, SEEK_CUR) >= 0), label_(std::move(label)) {}
    ~descriptor_device() override {
        if (owned_ && fd_ >= 0) ::close(fd_);
    }

    std::size_t read(buffer target) override {
        return std::size_t(insist(fd_, POLLIN, "read", label_,
                                  [&] { return ::read(fd_, target.data(), target.size()); }));
    }

    std::size_t write(bytes_view data) override { return write_some(fd_, data, regular_, label_); }

    std::uint64_t seek(std::int64_t offset, int whence) override {
        ::off_t const at = ::lseek(fd_, offset, whence);
        if (at < 0) fail(errno, "seek in", label_);
        return std::uint64_t(at);
    }

    void truncate(std::uint64_t size) override { truncate_descriptor(fd_, size, label_); }

    void close() override {
        int const old = std::exchange(fd_, -1);
        // Linux gives the number back also when it fails; EINTR says nothing about the data.
        if (owned_ && ::close(old) != 0 && errno != EINTR) fail(errno, "close", label_);
    }

    // From the page cache, or not at all. File systems that do not know the flag are not asked
    // again.
    std::optional<std::size_t> read_now(buffer target) override {
        if (!cache_answers_) return {};
        ::iovec const place{target.data(), target.size()};
        ssize_t const count = ::preadv2(fd_, &place, 1, -1, RWF_NOWAIT);
        if (count >= 0) return std::size_t(count);
        if (errno != EAGAIN && errno != EINTR) cache_answers_ = false; // read() finds out
        return {};
    }

    // Of a regular file that moves a number and nothing else, while the end asks the file system.
    std::optional<std::uint64_t> seek_now(std::int64_t offset, int whence) override {
        if (!regular_ || whence == SEEK_END) return {};
        return seek(offset, whence);
    }

    int fd() const override { return fd_; }
    bool seekable() const override { return seekable_; }
    bool lent() const override { return !owned_; }
    bool may_gather() const override { return regular_; }
    std::uint64_t size_hint() const override { return regular_ ? bytes_ahead(fd_) : 0; }

private:
    int fd_;
    bool const owned_;
    bool const regular_;
    bool const seekable_;
    bool cache_answers_ = true;
    std::string const label_;
};

// A C stream keeps its own buffer and position; it is used by its own functions only. Whoever lent
// it may use it between our calls.
//
// But for writing where a write may be cut short, by a signal or since the descriptor does not wait: in pipes,
// sockets and terminals, which have no position. There glibc drops what is in its buffer with the first write(2)
// that fails, and does not tell how much had gone out before. So its buffer is written out here, then what is
// written goes to the descriptor.
class stdio_device final : public file_device {
public:
    stdio_device(std::FILE* stream, bool owned, std::string label)
        : stream_(stream), owned_(owned), regular_(is_regular(::fileno(stream))),
          seekable_(::ftello(stream) >= 0),
          past_buffer_(!seekable_ && ::fileno(stream) >= 0 && std::fwide(stream, -1) < 0),
          label_(std::move(label)) {}
    ~stdio_device() override {
        if (stream_ == nullptr) return;
        try {
            close();
        } catch (std::exception const&) { // nobody can be told: close() tells
        }
    }

    std::size_t read(buffer target) override {
        turn_to(direction::reading);
        int const first = first_octet();
        if (first == EOF) return 0;
        target[0] = std::byte(first);
        return 1 + take_buffered(target.subspan(1));
    }

    std::optional<std::size_t> read_now(buffer target) override {
        if (last_ != direction::reading) return {};
        std::size_t const count = take_buffered(target);
        return count > 0 ? std::optional(count) : std::nullopt;
    }

    std::size_t write(bytes_view data) override {
        if (past_buffer_) {
            write_out_buffer();
            return write_some(fd(), data, false, label_);
        }
        turn_to(direction::writing);
        ssize_t const count =
            write_out([&] { return ssize_t(std::fwrite(data.data(), 1, data.size(), stream_)); });
        if (count > 0) return std::size_t(count);
        int const error = errno;
        std::clearerr(stream_);
        fail(error, "write to", label_);
    }

    std::uint64_t seek(std::int64_t offset, int whence) override {
        turn_to(direction::none);
        if (write_out([&] { return ::fseeko(stream_, offset, whence); }) != 0)
            fail(errno, "seek in", label_);
        return std::uint64_t(::ftello(stream_));
    }

    void truncate(std::uint64_t size) override {
        flush();
        truncate_descriptor(fd(), size, label_);
    }

    void flush() override {
        if (past_buffer_) return write_out_buffer();
        if (write_out([this] { return std::fflush(stream_); }) != 0)
            fail(errno, "write to", label_);
    }

    void close() override {
        std::exception_ptr failure;
        try {
            flush();
        } catch (std::exception const&) { // thrown when it is closed
            failure = std::current_exception();
        }
        std::FILE* const old = std::exchange(stream_, nullptr);
        // As for descriptors: EINTR says nothing about the data.
        bool const failed = owned_ && write_out([&] { return std::fclose(old); }) != 0 && errno != EINTR;
        if (failure) std::rethrow_exception(failure);
        if (failed) fail(errno, "close", label_);
    }

    int fd() const override { return ::fileno(stream_); }
    std::FILE* stream() const override { return stream_; }
    bool seekable() const override { return seekable_; }
    bool lent() const override { return !owned_; }

private:
    enum class direction { none, reading, writing };

    // C wants a positioning between reading and writing. Where that is impossible, as in a socket, what was read
    // ahead has the buffer for itself: writing goes past it.
    void turn_to(direction next) {
        if (past_buffer_)
            write_out_buffer();
        else if (last_ != next && last_ != direction::none && next != direction::none)
            write_out([this] { return ::fseeko(stream_, 0, SEEK_CUR); });
        last_ = next;
    }

    // Fills the stream's buffer by one read(2).
    int first_octet() {
        for (;;) {
            int const first = std::getc(stream_);
            if (first != EOF) return first;
            int const error = errno;
            bool const failed = std::ferror(stream_) != 0;
            std::clearerr(stream_);
            if (!failed) return EOF;
            if (error == EAGAIN && fd() >= 0)
                wait_for(fd(), POLLIN);
            else if (error != EINTR)
                fail(error, "read", label_);
        }
    }

    // What whoever lent the stream has left in its buffer. What cannot be written stays there.
    void write_out_buffer() {
        ::flockfile(stream_); // another thread may flush all streams there are
        std::unique_ptr<std::FILE, void (*)(std::FILE*)> const lock(stream_, ::funlockfile);
        while (std::size_t const size = ::__fpending(stream_)) {
            char* const begin = stream_->_IO_write_base;
            std::size_t const done = write_some(fd(), std::string_view(begin, size), false, label_);
            std::memmove(begin, begin + done, size - done);
            stream_->_IO_write_ptr -= done;
        }
    }

    // What may write. The C library tells not always that a write failed: with room in its buffer
    // fwrite() succeeds all the same. So a signal is looked for whatever the call answers.
    template <class Call> ssize_t write_out(Call call) {
        constexpr std::size_t whatever = std::numeric_limits<std::size_t>::max();
        return regular_ ? ssize_t(call()) : without_pipe_signal(whatever, call);
    }

    // fread() would go on reading until the target is full.
    std::size_t take_buffered(buffer target) {
        auto const ready = std::size_t(stream_->_IO_read_end - stream_->_IO_read_ptr);
        return std::fread(target.data(), 1, std::min(ready, target.size()), stream_);
    }

    std::FILE* stream_;
    bool const owned_;
    bool const regular_;
    bool const seekable_;
    bool const past_buffer_;
    direction last_ = direction::none;
    std::string const label_;
};

} // namespace

std::unique_ptr<file_device> make_descriptor_device(int fd, bool owned, std::string label) {
    return std::make_unique<descriptor_device>(fd, owned, std::move(label));
}

std::unique_ptr<file_device> make_stdio_device(std::FILE* stream, bool owned, std::string label) {
    return std::make_unique<stdio_device>(stream, owned, std::move(label));
}

} // namespace weft::detail
