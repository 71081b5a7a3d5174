#pragma once

#include <weft/io/bytes.hpp>
#include <weft/streams/pipe.hpp>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <utility>

#include <pthread.h>
#include <sys/types.h>

namespace weft::detail {

/// For system calls that write and know no MSG_NOSIGNAL. The signal goes to the thread that writes:
/// it is held back there, and taken away if it is ours. It comes with EPIPE, and also where a part was
/// written before the other side went: whenever less than `asked` was. The call must not suspend;
/// errno is its own.
template <class Call> ssize_t without_pipe_signal(std::size_t asked, Call call) noexcept {
    ::sigset_t pipe_signal;
    ::sigset_t before;
    ::sigset_t pending;
    ::sigemptyset(&pipe_signal);
    ::sigaddset(&pipe_signal, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ::sigpending(&pending);
    bool const was_pending = ::sigismember(&pending, SIGPIPE) == 1;
    ssize_t const count = call();
    int const error = errno;
    bool const may_be_raised = count < 0 ? error == EPIPE : std::size_t(count) < asked;
    if (may_be_raised && !was_pending) {
        ::timespec const at_once{};
        while (::sigtimedwait(&pipe_signal, nullptr, &at_once) < 0 && errno == EINTR) {}
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = error;
    return count;
}

/// write(2) that answers EPIPE and does not raise SIGPIPE.
ssize_t write_quietly(int fd, bytes_view) noexcept;

/// Whether epoll knows how to wait for it: not regular files, not /dev/null.
bool can_be_polled(int fd) noexcept;

/// Streams over descriptors that are known to be of pipes and not to block.
struct pipe_maker {
    static pipe_receive_stream receiving(unique_fd fd) {
        return pipe_receive_stream(std::move(fd));
    }
    static pipe_send_stream sending(unique_fd fd) { return pipe_send_stream(std::move(fd)); }
};

} // namespace weft::detail
