#include <weft/streams/pipe.hpp>

#include "pipe_calls.hpp"

#include <weft/io/detail/pipe_signal.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/streams/detail/connected_socket.hpp>

#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

namespace weft {

namespace {

void prepare(unique_fd const& fd) {
    if (!detail::can_be_polled(fd.get()))
        throw std::invalid_argument("file descriptor " + std::to_string(fd.get()) +
                                    " is not that of a pipe, a terminal or a socket");
    detail::make_non_blocking(fd.get());
}

} // namespace

ssize_t detail::write_quietly(int fd, bytes_view data) noexcept {
    return without_pipe_signal(data.size(), [&] { return ::write(fd, data.data(), data.size()); });
}

bool detail::can_be_polled(int fd) {
    unique_fd const poller(::epoll_create1(EPOLL_CLOEXEC));
    ::epoll_event event{};
    if (poller && ::epoll_ctl(poller.get(), EPOLL_CTL_ADD, fd, &event) == 0) return true;
    if (poller && (errno == EPERM || errno == EBADF || errno == ELOOP)) return false;
    throw std::system_error(errno, std::system_category(), "file descriptor " + std::to_string(fd));
}

pipe_receive_stream pipe_receive_stream::from_descriptor(unique_fd&& fd) {
    prepare(fd);
    return detail::pipe_maker::receiving(std::move(fd));
}

std::size_t pipe_receive_stream::receive_some(buffer target) {
    static constexpr char const* call = "pipe receive";
    if (target.empty()) throw std::invalid_argument("there is no room in the buffer");
    detail::descriptor_use use(descriptor_, detail::access::read, "reading from");
    detail::enter_blocking_call(call);
    ssize_t const count =
        use.retry(call, [target](int fd) { return ::read(fd, target.data(), target.size()); });
    if (count == -EIO) return 0; // a terminal whose other side is gone
    if (int const error = detail::read_error(use, count)) detail::throw_socket_error("read", error);
    return std::size_t(count);
}

pipe_send_stream pipe_send_stream::from_descriptor(unique_fd&& fd) {
    prepare(fd);
    return detail::pipe_maker::sending(std::move(fd));
}

void pipe_send_stream::send(bytes_view data) {
    static constexpr char const* call = "pipe send";
    detail::descriptor_use use(descriptor_, detail::access::write, "writing to");
    detail::enter_blocking_call(call);
    while (!data.empty()) {
        ssize_t const sent =
            use.retry(call, [data](int fd) { return detail::write_quietly(fd, data); });
        if (sent <= 0) detail::throw_broken("write", sent < 0 ? int(-sent) : EIO); // 0: it takes nothing
        data = data.subview(std::size_t(sent));
    }
}

pipe_ends create_pipe() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
        throw std::system_error(errno, std::system_category(), "pipe2");
    unique_fd receive(fds[0]);
    unique_fd send(fds[1]);
    return {detail::pipe_maker::sending(std::move(send)),
            detail::pipe_maker::receiving(std::move(receive))};
}

} // namespace weft
