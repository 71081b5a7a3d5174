#pragma once

#include <weft/io/path.hpp>
#include <weft/streams/detail/datagram_socket.hpp>
#include <weft/streams/object_stream.hpp>
#include <weft/streams/socket.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace weft {

/// Who made the other end of a UNIX stream, as the kernel saw it then.
struct peer_credentials {
    ::pid_t pid = 0;
    ::uid_t uid = 0;
    ::gid_t gid = 0;

    friend bool operator==(peer_credentials const&, peer_credentials const&) = default;
};

namespace socket_attribute {
/// Of a unix_socket_stream. Source: unix(7), SO_PEERCRED
inline constexpr typed_attribute<weft::peer_credentials> peer_credentials{"peer_credentials"};
} // namespace socket_attribute

/// A connection between processes of one machine, which also carries file descriptors.
///
/// Receiving and sending are independent of each other; each by one task at a time. Descriptors
/// arrive with the first octet of their message, and are closed by the kernel if that is received
/// by another call than receive_fds().
///
/// Threads       any task; close() wakes those that wait in another one
/// Cancellation  receive_some() and receive_fds() took nothing; of send() and send_fds() an unknown
///               part may be on its way, and the stream stays usable
/// Errors        as byte_stream; closed_resource_error wins over all others
/// Source        AnyIO UNIXSocketStream
class unix_socket_stream final : public byte_stream {
public:
    /// Takes over a connected UNIX stream socket. Errors: std::invalid_argument (not one; it is
    /// left alone)
    static unix_socket_stream from_socket(unique_fd&&);
    static unix_socket_stream from_socket(unique_fd& fd) { return from_socket(std::move(fd)); }

    explicit unix_socket_stream(detail::connected_socket socket) : socket_(std::move(socket)) {}
    explicit unix_socket_stream(detail::accepted_socket accepted)
        : socket_(std::move(accepted.descriptor), accepted.family, std::move(accepted.remote)) {}

    std::size_t receive_some(buffer target) override { return socket_.receive_some(target); }
    bytes receive(std::size_t max_bytes = default_chunk) override {
        return socket_.receive(max_bytes);
    }
    void send(bytes_view data) override { socket_.send(data); }
    void send(std::span<bytes_view const> parts) override { socket_.send(parts); }
    /// Sends so many octets of a file, from the offset on, and gives their number: less if the file
    /// ends before. They go from the page cache to the socket without a copy; what is not in it is
    /// read by a thread first. Cancellation and errors as send(); std::system_error (not such a file).
    /// Source: sendfile(2)
    std::uint64_t send_file(int file, std::uint64_t offset, std::uint64_t count) {
        return socket_.send_file(file, offset, count);
    }
    void send_eof() override { socket_.send_eof(); }
    void close() override { socket_.close(); }
    attribute_map extra_attributes() const override;

    /// Receives at most so many octets and descriptors of one message. The descriptors are
    /// close-on-exec. Those that are more than maxfds the kernel has closed.
    ///
    /// Errors  end_of_stream; std::invalid_argument (maxfds is 0); std::runtime_error (ancillary
    ///         data that are no descriptors came); std::system_error (EMFILE: there was no room for
    ///         some of the descriptors). After the last two the message is lost and its descriptors
    ///         are closed; the stream stays usable.
    std::pair<bytes, std::vector<unique_fd>> receive_fds(std::size_t msglen, std::size_t maxfds);

    /// Sends the message, and with its beginning the descriptors, which stay open here.
    ///
    /// Errors  std::invalid_argument (no message, no descriptors or more than 253);
    ///         std::system_error (EBADF: one is not open; ETOOMANYREFS: too many are on their way;
    ///         nothing was sent)
    void send_fds(bytes_view message, std::span<int const> fds);

    /// What listening sockets of this kind must be.
    static constexpr bool is_unix = true;

private:
    detail::connected_socket socket_;
};

/// Connects to a listener, by the path of its socket; a path that begins with NUL is a name in the
/// abstract namespace. While the listener's backlog is full, it tries again and again.
///
/// Cancellation  a cancellation point; cancelled, nothing is left open
/// Errors        std::system_error with the path (ENOENT, ECONNREFUSED and the like);
///               std::invalid_argument (a path of more than 107 octets)
/// Source        AnyIO connect_unix
unix_socket_stream connect_unix(path const& name);

struct unix_listener_options {
    std::optional<::mode_t> mode{}; ///< permissions of the socket file; none: as the umask has it
    int backlog = 65536;            ///< at most
};

/// Listens at a path; one that begins with NUL is a name in the abstract namespace. A socket that
/// is there already is replaced; any other file is not. The socket file stays when the listener is
/// closed.
///
/// Cancellation  a cancellation point; cancelled or failed, nothing is left open
/// Errors        std::system_error with the path (EADDRINUSE, ENOENT, EACCES and the like);
///               std::invalid_argument (a path of more than 107 octets)
/// Source        AnyIO create_unix_listener
socket_listener<unix_socket_stream> create_unix_listener(path const& name,
                                                         unix_listener_options options = {});

/// A UNIX datagram socket that talks to anybody.
///
/// Datagrams arrive whole and in order; what a sender without a name sent has an address with an
/// empty path. While the receiver's queue is full, sending waits. One task receives and one sends
/// at a time.
///
/// Threads       any task; close() wakes those that wait in another one
/// Cancellation  cancellation points; cancelled, nothing was taken or sent
/// Errors        closed_resource_error, busy_resource_error; std::invalid_argument (sending to no
///               name, or to one that is too long); std::system_error (ENOENT, ECONNREFUSED:
///               nobody is there; EMSGSIZE)
/// Source        AnyIO UNIXDatagramSocket
class unix_datagram_socket final : public unreliable_object_stream<datagram> {
public:
    /// Takes over a UNIX datagram socket. Errors: std::invalid_argument (not one; it is left alone)
    static unix_datagram_socket from_socket(unique_fd&&);
    static unix_datagram_socket from_socket(unique_fd& fd) { return from_socket(std::move(fd)); }
    explicit unix_datagram_socket(detail::datagram_socket socket) : socket_(std::move(socket)) {}

    datagram receive() override { return socket_.receive(); }
    void send(datagram item) override;
    void sendto(bytes_view data, path const& name);
    void close() override { socket_.close(); }
    attribute_map extra_attributes() const override { return socket_.attributes(); }

private:
    detail::datagram_socket socket_;
};

/// A UNIX datagram socket with one peer; what others send to it the kernel refuses.
///
/// Threads, cancellation  as unix_datagram_socket
/// Errors                 as unix_datagram_socket; broken_resource_error (the peer is gone)
/// Source                 AnyIO ConnectedUNIXDatagramSocket
class connected_unix_datagram_socket final : public unreliable_object_stream<bytes> {
public:
    /// Takes over a connected UNIX datagram socket. Errors: std::invalid_argument (not one; it is
    /// left alone)
    static connected_unix_datagram_socket from_socket(unique_fd&&);
    static connected_unix_datagram_socket from_socket(unique_fd& fd) {
        return from_socket(std::move(fd));
    }
    explicit connected_unix_datagram_socket(detail::datagram_socket socket)
        : socket_(std::move(socket)) {}

    bytes receive() override { return std::move(socket_.receive().data); }
    void send(bytes item) override { socket_.send(item, nullptr); }
    void close() override { socket_.close(); }
    attribute_map extra_attributes() const override { return socket_.attributes(); }

private:
    detail::datagram_socket socket_;
};

struct unix_datagram_options {
    std::optional<path> local_path{};     ///< where others reach the socket; none: nowhere
    std::optional<::mode_t> local_mode{}; ///< permissions of the socket file, as for a listener
};

/// A socket that is at local_path already is replaced; the file stays when the socket is closed.
/// A cancellation point. Errors: as create_unix_listener(). Source: AnyIO
/// create_unix_datagram_socket
unix_datagram_socket create_unix_datagram_socket(unix_datagram_options options = {});

/// Connected to the socket at a path; the rest as create_unix_datagram_socket(). Source: AnyIO
/// create_connected_unix_datagram_socket
connected_unix_datagram_socket
create_connected_unix_datagram_socket(path const& name, unix_datagram_options options = {});

} // namespace weft
