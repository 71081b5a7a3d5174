#pragma once

#include <weft/io/descriptor.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/streams/byte_stream.hpp>

namespace weft {

namespace detail {
struct pipe_maker;
}

/// The end of a pipe that octets come out of.
///
/// The other end is told (by EPIPE) when this one is closed and no copy of it is open elsewhere.
///
/// Threads, cancellation, errors  as byte_receive_stream
/// Source                         AnyIO's process pipes
class pipe_receive_stream final : public byte_receive_stream {
public:
    /// Adopts a descriptor that can be polled: of a pipe, a FIFO, a terminal, a socket. It becomes
    /// non-blocking, and with it every copy of it, those of other processes included. Errors:
    /// std::invalid_argument (a regular file, or none that is open); the descriptor is left alone
    static pipe_receive_stream from_descriptor(unique_fd&&);

    pipe_receive_stream(pipe_receive_stream&&) noexcept = default;
    pipe_receive_stream& operator=(pipe_receive_stream&&) noexcept = default;

    std::size_t receive_some(buffer) override;
    void close() override { descriptor_.close(); }

private:
    friend struct detail::pipe_maker;
    explicit pipe_receive_stream(unique_fd&& fd) : descriptor_(std::move(fd)) {}

    detail::open_descriptor descriptor_;
};

/// The end of a pipe that octets go into.
///
/// A write whose reader is gone is broken_resource_error and never the signal SIGPIPE. Closing it
/// is how the reader is told that nothing more comes.
///
/// Threads, cancellation, errors  as byte_send_stream
/// Source                         AnyIO's process pipes
class pipe_send_stream final : public byte_send_stream {
public:
    /// As pipe_receive_stream::from_descriptor().
    static pipe_send_stream from_descriptor(unique_fd&&);

    pipe_send_stream(pipe_send_stream&&) noexcept = default;
    pipe_send_stream& operator=(pipe_send_stream&&) noexcept = default;

    using byte_send_stream::send;
    void send(bytes_view) override;
    void close() override { descriptor_.close(); }

private:
    friend struct detail::pipe_maker;
    explicit pipe_send_stream(unique_fd&& fd) : descriptor_(std::move(fd)) {}

    detail::open_descriptor descriptor_;
};

/// Both ends of a pipe in this process.
struct pipe_ends {
    pipe_send_stream send;
    pipe_receive_stream receive;
};

/// A pipe within this process. Does not wait. Errors: std::system_error (EMFILE)
pipe_ends create_pipe();

} // namespace weft
