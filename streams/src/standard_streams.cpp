#include <weft/streams/standard_streams.hpp>

#include "pipe_calls.hpp"

#include <weft/io/detail/open_descriptor.hpp>
#include <weft/io/error.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/streams/detail/closable_wait.hpp>
#include <weft/streams/detail/connected_socket.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/to_thread.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

// How to wait for a descriptor that is not ours alone.
//
//   O_NONBLOCK belongs to the open file, which the shell and other children have, too: set on
//   standard input, it makes their reads fail. So:
//
//   pipe, FIFO, terminal   opened once more by /proc/self/fd: another open file of the same pipe or
//                          terminal, which may be non-blocking (`own`)
//   socket                 MSG_DONTWAIT is for one call
//   regular file           never blocks for long, and where it stands is shared: a thread
//   all else               a terminal that we may not open, a device: wait until it is ready, if
//                          that can be told, and let a thread read, which blocks only if somebody
//                          else was faster (`patient`). Where others have set O_NONBLOCK it says
//                          EAGAIN then: until the next event, since "ready" may be said all the same
//                          (an eventfd whose room is too small for the number)

namespace weft {

namespace {

using detail::access;
using detail::descriptor_use;
using detail::open_descriptor;

constexpr char const* receive_call = "shared receive";
constexpr char const* send_call = "shared send";
constexpr std::size_t most_for_a_terminal = 4096; // a larger write may block although it is ready

void require_room(buffer target) {
    if (target.empty()) throw std::invalid_argument("there is no room in the buffer");
}

unique_fd duplicate(int fd) {
    unique_fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!copy)
        throw std::system_error(errno, std::system_category(),
                                "file descriptor " + std::to_string(fd));
    return copy;
}

bool is_ready(int fd, short events) {
    ::pollfd look{fd, events, 0};
    return ::poll(&look, 1, 0) != 0;
}

// -- Sockets --------------------------------------------------------------------------------------

class socket_source final : public byte_receive_stream {
public:
    explicit socket_source(unique_fd fd) : descriptor_(std::move(fd)) {}

    std::size_t receive_some(buffer target) override {
        require_room(target);
        descriptor_use use(descriptor_, access::read, "reading from");
        detail::enter_blocking_call(receive_call);
        ssize_t const count = use.retry(receive_call, [target](int fd) {
            return ::recv(fd, target.data(), target.size(), MSG_DONTWAIT);
        });
        if (int const error = detail::read_error(use, count)) detail::throw_socket_error("receive", error);
        return std::size_t(count);
    }
    void close() override { descriptor_.close(); }

private:
    open_descriptor descriptor_;
};

class socket_sink final : public byte_send_stream {
public:
    explicit socket_sink(unique_fd fd) : descriptor_(std::move(fd)) {}

    using byte_send_stream::send;
    void send(bytes_view data) override {
        descriptor_use use(descriptor_, access::write, "writing to");
        detail::enter_blocking_call(send_call);
        while (!data.empty()) {
            ssize_t const sent = use.retry(send_call, [data](int fd) {
                return ::send(fd, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            });
            if (sent < 0) detail::throw_socket_error("send", int(-sent));
            data = data.subview(std::size_t(sent));
        }
    }
    void close() override { descriptor_.close(); }

private:
    open_descriptor descriptor_;
};

// -- Regular files --------------------------------------------------------------------------------

class file_source final : public byte_receive_stream {
public:
    explicit file_source(unique_fd fd) : descriptor_(std::move(fd)) {}

    std::size_t receive_some(buffer target) override {
        require_room(target);
        descriptor_use const use(descriptor_, access::read, "reading from");
        ssize_t const count = to_thread::run_sync([fd = use.fd(), target] {
            ssize_t result = 0;
            do
                result = ::read(fd, target.data(), target.size());
            while (result < 0 && errno == EINTR);
            return result < 0 ? -ssize_t(errno) : result;
        });
        if (count < 0) detail::throw_broken("read", int(-count));
        return std::size_t(count);
    }
    void close() override { descriptor_.close(); }

private:
    open_descriptor descriptor_;
};

class file_sink final : public byte_send_stream {
public:
    explicit file_sink(unique_fd fd) : descriptor_(std::move(fd)) {}

    using byte_send_stream::send;
    void send(bytes_view data) override {
        descriptor_use const use(descriptor_, access::write, "writing to");
        int const error =
            to_thread::run_sync([fd = use.fd(), data] { return write_all(fd, data); });
        if (error != 0) detail::throw_broken("write", error);
    }
    void close() override { descriptor_.close(); }

private:
    static int write_all(int fd, bytes_view data) {
        while (!data.empty()) {
            ssize_t const count = detail::write_quietly(fd, data);
            if (count == 0) return EIO; // a device that takes nothing: not tried for ever
            if (count > 0)
                data = data.subview(std::size_t(count));
            else if (errno != EINTR)
                return errno;
        }
        return 0;
    }

    open_descriptor descriptor_;
};

// -- All else -------------------------------------------------------------------------------------

// One read in a thread, which may take for ever. Shared with the thread; neither relies on the
// other.
struct thread_read {
    thread_read(int shared, std::size_t most) : fd(duplicate(shared)), data(most, '\0') {}

    unique_fd fd; // its own: the stream may be closed meanwhile
    bytes data;
    int error = 0;
    std::atomic<bool> decided = false; // by the thread: it reads; by who was cancelled: nobody does
    event done;                        // set last

    bool decide() { return !decided.exchange(true, std::memory_order_relaxed); } // who is first

    void perform() {
        if (!decide()) return;
        ssize_t count = 0;
        do
            count = ::read(fd.get(), data.data(), data.size());
        while (count < 0 && errno == EINTR);
        error = count < 0 ? errno : 0;
        data.resize(count < 0 ? 0 : std::size_t(count));
        done.set();
    }
};

// What such a stream waits on. Shared, since who waits may destroy the stream once it is woken, and
// so may who closes it. A read or write in a thread is left alone when the wait for it ends.
struct patient_descriptor {
    explicit patient_descriptor(unique_fd fd) : descriptor(std::move(fd)) {}

    open_descriptor descriptor;
    detail::closable_wait in_thread;
    // The reader's:
    bytes rest; // read, and not yet received
    std::shared_ptr<thread_read> under_way;
};

void close_shared(std::shared_ptr<patient_descriptor> const of) {
    of->descriptor.close();
    of->in_thread.close();
}

class patient_source final : public byte_receive_stream {
public:
    patient_source(unique_fd fd, bool can_wait)
        : own_(std::make_shared<patient_descriptor>(std::move(fd))), can_wait_(can_wait) {}
    ~patient_source() override { close_shared(own_); }

    std::size_t receive_some(buffer target) override {
        require_room(target);
        auto const own = own_;
        descriptor_use use(own->descriptor, access::read, "reading from");
        detail::enter_blocking_call(receive_call);
        if (own->rest.empty()) read_more(*own, use, target.size(), can_wait_);
        std::size_t const count = std::min(own->rest.size(), target.size());
        if (count != 0) std::memcpy(target.data(), own->rest.data(), count);
        own->rest.erase(0, count);
        return count;
    }
    void close() override { close_shared(own_); }

private:
    static void read_more(patient_descriptor& own, descriptor_use& use, std::size_t most,
                          bool can_wait) {
        for (;;) {
            if (own.under_way == nullptr && can_wait)
                use.retry(receive_call, [](int fd) -> ssize_t {
                    if (is_ready(fd, POLLIN)) return 0;
                    errno = EAGAIN;
                    return -1;
                });
            auto const read =
                own.in_thread.run([&] { return read_in_thread(own.under_way, use.fd(), most); });
            if (read->error == EAGAIN && can_wait) {
                use.wait(receive_call);
                continue;
            }
            if (read->error == EIO) return; // a terminal whose other side is gone
            if (read->error != 0) detail::throw_broken("read", read->error);
            own.rest = std::move(read->data);
            return;
        }
    }

    static std::shared_ptr<thread_read> read_in_thread(std::shared_ptr<thread_read>& under_way,
                                                       int fd, std::size_t most) {
        if (under_way == nullptr) {
            under_way = std::make_shared<thread_read>(fd, most);
            try {
                to_thread::run_sync({.abandon_on_cancel = true},
                                    [read = under_way] { read->perform(); });
            } catch (...) { // cancelled: what it reads is for the next one
                if (under_way->decide()) under_way.reset();
                throw;
            }
        } else {
            under_way->done.wait();
        }
        return std::exchange(under_way, nullptr);
    }

    std::shared_ptr<patient_descriptor> const own_;
    bool const can_wait_;
};

class patient_sink final : public byte_send_stream {
public:
    explicit patient_sink(unique_fd fd)
        : own_(std::make_shared<patient_descriptor>(std::move(fd))) {}
    ~patient_sink() override { close_shared(own_); }

    using byte_send_stream::send;
    void send(bytes_view data) override {
        auto const own = own_;
        descriptor_use use(own->descriptor, access::write, "writing to");
        detail::enter_blocking_call(send_call);
        while (!data.empty()) {
            use.retry(send_call, [](int fd) -> ssize_t {
                if (is_ready(fd, POLLOUT)) return 0;
                errno = EAGAIN;
                return -1;
            });
            ssize_t const sent =
                own->in_thread.run([fd = use.fd(), data] { return write_in_thread(fd, data); });
            if (sent == -EAGAIN)
                use.wait(send_call);
            else if (sent < 0 && sent != -EINTR)
                detail::throw_broken("write", int(-sent));
            else if (sent > 0)
                data = data.subview(std::size_t(sent));
        }
    }
    void close() override { close_shared(own_); }

private:
    static ssize_t write_in_thread(int fd, bytes_view data) {
        auto const own = std::make_shared<unique_fd>(duplicate(fd));
        return to_thread::run_sync({.abandon_on_cancel = true},
                                   [own, part = data.subview(0, most_for_a_terminal).to_bytes()] {
                                       ssize_t const count =
                                           detail::write_quietly(own->get(), part);
                                       if (count == 0) errno = EIO; // it takes nothing
                                       return count <= 0 ? -ssize_t(errno) : count;
                                   });
    }

    std::shared_ptr<patient_descriptor> const own_;
};

// -- Which of them --------------------------------------------------------------------------------

enum class nature { own, socket, file, pollable, other };

// The controlling side of a pseudo-terminal opened once more is another pseudo-terminal.
bool may_be_opened_again(int fd, ::mode_t mode) {
    int number = 0;
    return S_ISFIFO(mode) ||
           (S_ISCHR(mode) && ::isatty(fd) != 0 && ::ioctl(fd, TIOCGPTN, &number) != 0);
}

unique_fd open_again(int fd, int direction) {
    std::string const name = "/proc/self/fd/" + std::to_string(fd);
    return unique_fd(::open(name.c_str(), direction | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
}

struct looked_at {
    nature what;
    unique_fd fd; // ours: a duplicate, or opened again
};

looked_at look_at(int fd, int direction) {
    struct ::stat status {};
    if (::fstat(fd, &status) != 0)
        throw std::system_error(errno, std::system_category(),
                                "file descriptor " + std::to_string(fd));
    if (S_ISSOCK(status.st_mode)) return {nature::socket, duplicate(fd)};
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) return {nature::file, duplicate(fd)};
    if (may_be_opened_again(fd, status.st_mode))
        if (unique_fd own = open_again(fd, direction)) return {nature::own, std::move(own)};
    return {detail::can_be_polled(fd) ? nature::pollable : nature::other, duplicate(fd)};
}

} // namespace

any_byte_receive_stream receive_from_shared(int fd) {
    auto [what, own] = look_at(fd, O_RDONLY);
    switch (what) {
    case nature::own: return detail::pipe_maker::receiving(std::move(own));
    case nature::socket: return socket_source(std::move(own));
    case nature::file: return file_source(std::move(own));
    default: return std::make_unique<patient_source>(std::move(own), what == nature::pollable);
    }
}

any_byte_send_stream send_to_shared(int fd) {
    auto [what, own] = look_at(fd, O_WRONLY);
    switch (what) {
    case nature::own: return detail::pipe_maker::sending(std::move(own));
    case nature::socket: return socket_sink(std::move(own));
    case nature::pollable: return std::make_unique<patient_sink>(std::move(own));
    default: return file_sink(std::move(own));
    }
}

any_byte_receive_stream standard_input() { return receive_from_shared(STDIN_FILENO); }
any_byte_send_stream standard_output() { return send_to_shared(STDOUT_FILENO); }
any_byte_send_stream standard_error() { return send_to_shared(STDERR_FILENO); }

} // namespace weft
