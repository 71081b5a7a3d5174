#pragma once

#include <weft/io/address.hpp>
#include <weft/io/descriptor.hpp>
#include <weft/streams/byte_stream.hpp>
#include <weft/streams/detail/connected_socket.hpp>
#include <weft/streams/detail/listening_socket.hpp>
#include <weft/streams/listener.hpp>

#include <cstdint>
#include <span>
#include <utility>

namespace weft {

/// What sockets can be asked for. Ports there are for IP only, remote ones for what is connected.
/// The descriptor stays the socket's: whoever takes it must not close it. Source: AnyIO
/// SocketAttribute
namespace socket_attribute {
inline constexpr typed_attribute<int> family{"family"};
inline constexpr typed_attribute<socket_address> local_address{"local_address"};
inline constexpr typed_attribute<std::uint16_t> local_port{"local_port"};
inline constexpr typed_attribute<int> raw_socket{"raw_socket"};
inline constexpr typed_attribute<socket_address> remote_address{"remote_address"};
inline constexpr typed_attribute<std::uint16_t> remote_port{"remote_port"};
} // namespace socket_attribute

/// A TCP connection.
///
/// Receiving and sending are independent of each other; each by one task at a time. What came
/// before the end or a reset is received before it. Nothing is buffered outside of the kernel.
///
/// Threads       any task; close() wakes those that wait in another one
/// Cancellation  receive_some() took nothing; of send() an unknown part may be on its way, and the
///               stream stays usable
/// Errors        as byte_stream; closed_resource_error wins over all others
/// Source        AnyIO SocketStream
class socket_stream final : public byte_stream {
public:
    /// Takes over a connected TCP socket. Errors: std::invalid_argument (not one; it is left alone)
    static socket_stream from_socket(unique_fd&&);
    static socket_stream from_socket(unique_fd& fd) { return from_socket(std::move(fd)); }

    explicit socket_stream(detail::connected_socket socket) : socket_(std::move(socket)) {}
    explicit socket_stream(detail::accepted_socket accepted)
        : socket_(std::move(accepted.descriptor), accepted.family, std::move(accepted.remote)) {}

    std::size_t receive_some(buffer target) override { return socket_.receive_some(target); }
    bytes receive(std::size_t max_bytes = default_chunk) override {
        return socket_.receive(max_bytes);
    }
    void send(bytes_view data) override { socket_.send(data); }
    void send(std::span<bytes_view const> parts) override { socket_.send(parts); }
    /// Sends so many octets of a file, from the offset on, and gives their number: less if the file
    /// ends before. They go from the page cache to the socket without a copy; what is not in it is
    /// read by a thread first, which is waited for. Cancellation and errors as send(); std::system_error (not such a file).
    /// Source: sendfile(2)
    std::uint64_t send_file(int file, std::uint64_t offset, std::uint64_t count) {
        return socket_.send_file(file, offset, count);
    }
    void send_eof() override { socket_.send_eof(); }
    void close() override { socket_.close(); }
    attribute_map extra_attributes() const override { return socket_.attributes(); }

    /// What listening sockets of this kind must be.
    static constexpr bool is_unix = false;

private:
    detail::connected_socket socket_;
};

/// A socket that accepts connections.
///
/// One task accepts at a time; for several there are listeners with reuse_port. A connection that
/// was reset before it was accepted is passed over. serve() waits 100 ms when there are no
/// descriptors or no memory left, and tries again; accept() throws.
///
/// Threads       any task; close() wakes the one that waits in accept()
/// Cancellation  accept() is a cancellation point; cancelled, it took no connection
/// Errors        closed_resource_error; busy_resource_error; std::system_error
/// Source        AnyIO SocketListener
template <class Stream> class socket_listener final : public listener<Stream> {
public:
    /// Takes over a bound socket and listens. Errors: std::invalid_argument (not one; it is left
    /// alone)
    static socket_listener from_socket(unique_fd&& fd) {
        return socket_listener(detail::listening_socket::adopt(std::move(fd), Stream::is_unix));
    }
    static socket_listener from_socket(unique_fd& fd) { return from_socket(std::move(fd)); }

    explicit socket_listener(detail::listening_socket socket) : socket_(std::move(socket)) {}

    Stream accept() { return Stream(socket_.accept()); }
    void close() override { socket_.close(); }
    attribute_map extra_attributes() const override { return socket_.attributes(); }

protected:
    void serve_connections(connection_handler<Stream> const& handler, task_group& group) override {
        for (;;) {
            detail::connection_place place = handler.place();
            Stream accepted(socket_.accept_or_back_off(place));
            handler.start(group, std::move(accepted), std::move(place));
        }
    }

private:
    detail::listening_socket socket_;
};

} // namespace weft
