#pragma once

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <ctime>

#include <pthread.h>
#include <sys/types.h>

namespace weft::detail {

/// For system calls that write and know no MSG_NOSIGNAL. The signal goes to the thread that writes:
/// it is held back there, and taken away if it is ours. It comes with EPIPE, and also where a part was
/// written before the other side went: whenever less than `asked` was. The call must not suspend, nor
/// throw; errno is its own.
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
        while (::sigtimedwait(&pipe_signal, nullptr, &at_once) < 0 && errno == EINTR) {
        }
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = error;
    return count;
}

} // namespace weft::detail
