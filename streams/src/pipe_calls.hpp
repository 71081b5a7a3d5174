#pragma once

#include <weft/io/bytes.hpp>
#include <weft/streams/pipe.hpp>

#include <utility>

#include <sys/types.h>

namespace weft::detail {

/// write(2) that answers EPIPE and does not raise SIGPIPE.
ssize_t write_quietly(int fd, bytes_view) noexcept;

/// Whether epoll knows how to wait for it: not regular files, not /dev/null. Errors: std::system_error (no descriptor
/// left to ask with)
bool can_be_polled(int fd);

/// Streams over descriptors that are known to be of pipes and not to block.
struct pipe_maker {
    static pipe_receive_stream receiving(unique_fd&& fd) {
        return pipe_receive_stream(std::move(fd));
    }
    static pipe_send_stream sending(unique_fd&& fd) { return pipe_send_stream(std::move(fd)); }
};

} // namespace weft::detail
