#include <weft/streams/unix_socket.hpp>

#include "unix_name.hpp"

#include <weft/io/detail/raw_address.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/streams/error.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include <sys/socket.h>

namespace weft {

namespace {

using detail::descriptor_use;

constexpr std::size_t most_fds = 253; // the kernel's SCM_MAX_FD
constexpr int scm_pidfd = 4;           // a descriptor, too; glibc 2.36 has no name for it
constexpr int largest_backlog = 65536;
constexpr std::size_t most_octets = 1 << 20; // at once; a socket's buffer holds less

// Room for control messages, aligned as they must be.
struct control_room {
    alignas(::cmsghdr) std::array<char, CMSG_SPACE(most_fds * sizeof(int))> octets;
};

// Takes every descriptor in the control messages, whatever else is there. True: nothing else is.
bool take_fds(::msghdr& message, std::vector<unique_fd>& into) {
    bool only_fds = true;
    for (::cmsghdr* each = CMSG_FIRSTHDR(&message); each != nullptr;
         each = CMSG_NXTHDR(&message, each)) {
        bool const rights = each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_RIGHTS;
        bool const process = each->cmsg_level == SOL_SOCKET && each->cmsg_type == scm_pidfd;
        only_fds = only_fds && rights;
        if (!rights && !process) continue;
        std::size_t const count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t place = 0; place < count; ++place) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(each) + place * sizeof fd, sizeof fd);
            into.emplace_back(fd);
        }
    }
    return only_fds;
}

// Of a message without room for octets: nothing came, but is that the end?
bool has_more(int fd) {
    char octet;
    return ::recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

// These say what is wrong with the descriptors; the stream is as it was.
bool concerns_the_fds(int error) {
    return error == EBADF || error == EINVAL || error == ETOOMANYREFS || error == EPERM;
}

std::size_t send_with_fds(descriptor_use& use, bytes_view data, std::span<int const> fds) {
    ::iovec part{const_cast<std::byte*>(data.data()), data.size()};
    control_room room{};
    ::msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = room.octets.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    ::cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
    ssize_t const sent = use.retry("send_fds", [&message](int fd) {
        return ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    });
    if (sent >= 0) return std::size_t(sent);
    int const error = int(-sent);
    if (concerns_the_fds(error))
        throw std::system_error(error, std::system_category(), "send_fds");
    detail::fail_send(use, error);
}

} // namespace

unix_socket_stream unix_socket_stream::from_socket(unique_fd&& fd) {
    static constexpr std::array families{AF_UNIX};
    detail::check_socket(fd.get(), {.families = families,
                                    .type = SOCK_STREAM,
                                    .must_be = detail::expected_socket::state::connected});
    detail::make_non_blocking(fd.get());
    socket_address remote = detail::remote_address_of(fd.get());
    detail::open_descriptor descriptor(std::move(fd));
    return unix_socket_stream(
        detail::connected_socket(std::move(descriptor), AF_UNIX, std::move(remote)));
}

attribute_map unix_socket_stream::extra_attributes() const {
    attribute_map result = socket_.attributes();
    result.update({{socket_attribute::peer_credentials, [this] {
                        descriptor_use const use(socket_.descriptor(), detail::access::look,
                                                 "looking at");
                        ::ucred peer{};
                        ::socklen_t length = sizeof peer;
                        if (::getsockopt(use.fd(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
                            throw std::system_error(errno, std::system_category(), "SO_PEERCRED");
                        return peer_credentials{peer.pid, peer.uid, peer.gid};
                    }}});
    return result;
}

std::pair<bytes, std::vector<unique_fd>> unix_socket_stream::receive_fds(std::size_t msglen,
                                                                         std::size_t maxfds) {
    static constexpr char const* call = "receive_fds";
    if (maxfds == 0) throw std::invalid_argument("maxfds must be a positive integer");
    std::size_t const asked = std::min(maxfds, most_fds);
    bytes octets(std::min(msglen, most_octets), '\0');
    std::vector<unique_fd> fds;
    fds.reserve(most_fds); // nothing may throw between the kernel's giving and our owning

    descriptor_use use(socket_.descriptor(), detail::access::read, "reading from");
    detail::enter_blocking_call(call);
    ::iovec part{octets.data(), octets.size()};
    control_room room;
    ::msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = room.octets.data();
    ssize_t const count = use.retry(call, [&](int fd) {
        // Not CMSG_SPACE: in its padding the kernel would place another descriptor.
        message.msg_controllen = CMSG_LEN(asked * sizeof(int));
        message.msg_flags = 0;
        return ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    });
    if (count < 0) detail::throw_socket_error("receive", detail::read_error(use, count));
    bool const only_fds = take_fds(message, fds);
    if (!only_fds)
        throw std::runtime_error("receive_fds: ancillary data came that are no descriptors");
    if ((message.msg_flags & MSG_CTRUNC) != 0 && fds.size() < asked)
        throw std::system_error(EMFILE, std::system_category(),
                                "receive_fds: no room for some of the descriptors");
    if (count == 0 && fds.empty() && !(msglen == 0 && has_more(use.fd()))) {
        if (int const before = use.broken()) detail::throw_socket_error("receive", before);
        throw end_of_stream();
    }
    octets.resize(std::size_t(count));
    return {std::move(octets), std::move(fds)};
}

void unix_socket_stream::send_fds(bytes_view message, std::span<int const> fds) {
    if (message.empty()) throw std::invalid_argument("message must not be empty");
    if (fds.empty()) throw std::invalid_argument("fds must not be empty");
    if (fds.size() > most_fds)
        throw std::invalid_argument("fds must not be more than 253, the system's limit");
    descriptor_use use(socket_.descriptor(), detail::access::write, "writing to");
    detail::enter_blocking_call("send_fds");
    std::size_t const sent = send_with_fds(use, message, fds);
    detail::send_all(use, message.subview(sent));
}

unix_socket_stream connect_unix(path const& name) {
    socket_address const remote = detail::unix_address(name);
    detail::enter_blocking_call("connect_unix");
    unique_fd fd = detail::make_unix_socket(SOCK_STREAM, remote);
    detail::connect_unix_socket(fd, remote);
    detail::open_descriptor descriptor(std::move(fd));
    return unix_socket_stream(detail::connected_socket(std::move(descriptor), AF_UNIX, remote));
}

socket_listener<unix_socket_stream> create_unix_listener(path const& name,
                                                         unix_listener_options options) {
    socket_address const local = detail::unix_address(name);
    detail::enter_blocking_call("create_unix_listener");
    unique_fd fd = detail::make_unix_socket(SOCK_STREAM, local);
    detail::bind_unix_socket(fd, local, options.mode);
    if (::listen(fd.get(), std::min(options.backlog, largest_backlog)) != 0)
        detail::throw_unix_error(errno, "listen on", local);
    return socket_listener<unix_socket_stream>(detail::listening_socket(std::move(fd), AF_UNIX));
}

} // namespace weft
