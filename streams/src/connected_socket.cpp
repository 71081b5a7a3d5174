#include <weft/streams/detail/connected_socket.hpp>

#include "datagram_scratch.hpp"

#include <weft/io/detail/pipe_signal.hpp>
#include <weft/io/detail/raw_address.hpp>
#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/socket.hpp>
#include <weft/sync/to_thread.hpp>

#include <algorithm>
#include <array>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace weft::detail {

namespace {

constexpr std::size_t parts_at_once = 64; // of at most IOV_MAX = 1024; on the stack
constexpr int send_flags = MSG_NOSIGNAL | MSG_DONTWAIT;

constexpr std::uint64_t most_of_file = std::uint64_t(1) << 20; // between two cancellation points
constexpr std::size_t read_ahead = std::size_t(1)
                                   << 17; // what the kernel reads at least, as a rule

bool concerns_the_file(int error) {
    return error == EBADF || error == EINVAL || error == EIO || error == EOVERFLOW ||
           error == ESPIPE;
}

// sendfile(2) waits for the disk, whatever the socket's flags are, and the worker with it: 64 ms of lateness for
// others beside 256 MiB from a virtual disk. So it is looked at first what is in the page cache: an octet each
// 128 KiB, since the kernel reads and forgets in such pieces; all pages would cost as much as sending them.
bool is_cached(int file, std::uint64_t offset, std::size_t count) {
    char octet = 0;
    ::iovec const into{&octet, 1};
    for (std::size_t place = 0; place < count; place += read_ahead)
        if (::preadv2(file, &into, 1, ::off_t(offset + place), RWF_NOWAIT) < 0)
            return errno != EAGAIN &&
                   errno != EOPNOTSUPP; // what else is wrong sendfile(2) will say
    return true;
}

// In a thread: until it has been in the page cache.
void read_into_cache(int file, std::uint64_t offset, std::size_t count) {
    to_thread::run_sync([file, offset, count] {
        std::unique_ptr<char[]> const dropped(new char[read_ahead]);
        for (std::size_t done = 0; done < count;) {
            std::size_t const most = std::min(read_ahead, count - done);
            ssize_t const got = ::pread(file, dropped.get(), most, ::off_t(offset + done));
            if (got <= 0) return;
            done += std::size_t(got);
        }
    });
}

void skip(::msghdr& message, std::size_t count) {
    while (message.msg_iovlen != 0 && count >= message.msg_iov->iov_len) {
        count -= message.msg_iov->iov_len;
        ++message.msg_iov;
        --message.msg_iovlen;
    }
    if (message.msg_iovlen == 0) return;
    message.msg_iov->iov_base = static_cast<char*>(message.msg_iov->iov_base) + count;
    message.msg_iov->iov_len -= count;
}

void send_vector(descriptor_use& use, std::span<::iovec> vector) {
    ::msghdr message{};
    message.msg_iov = vector.data();
    message.msg_iovlen = vector.size();
    skip(message, 0);
    while (message.msg_iovlen != 0) {
        ssize_t const sent =
            use.retry("socket send", [&](int fd) { return ::sendmsg(fd, &message, send_flags); });
        if (sent < 0) fail_send(use, int(-sent));
        skip(message, std::size_t(sent));
    }
}

} // namespace

// EPIPE says nothing about receiving: it may be our own send_eof(), or what came after a clean end.
void fail_send(descriptor_use& use, int error) {
    if (error != EPIPE && error != ENOBUFS && error != ENOMEM) use.set_broken(error);
    throw_socket_error("send", error);
}

void send_all(descriptor_use& use, bytes_view data) {
    static constexpr char const* call = "socket send";
    while (!data.empty()) {
        ssize_t const sent = use.retry(
            call, [data](int fd) { return ::send(fd, data.data(), data.size(), send_flags); });
        if (sent < 0) fail_send(use, int(-sent));
        data = data.subview(std::size_t(sent));
    }
}

connected_socket::connected_socket(open_descriptor descriptor, int family, socket_address remote)
    : descriptor_(std::move(descriptor)), family_(family), remote_(std::move(remote)) {}

// room() gives where to: asked for after each wait, since the thread may be another one. Gives what was
// filled, nothing at the end.
template <class Room> buffer connected_socket::receive_into(Room const& room) {
    static constexpr char const* call = "socket receive";
    descriptor_use use(descriptor_, access::read, "reading from");
    enter_blocking_call(call);
    if (use.expects_nothing()) use.wait(call);
    buffer target;
    ssize_t const count = use.retry(call, [&](int fd) {
        target = room();
        return ::recv(fd, target.data(), target.size(), MSG_DONTWAIT);
    });
    if (count > 0) {
        use.note_read(target.size(), std::size_t(count));
        return target.first(std::size_t(count));
    }
    use.note_read(target.size(), 0);
    if (int const error = read_error(use, count)) throw_socket_error("receive", error);
    return {};
}

std::size_t connected_socket::receive_some(buffer target) {
    if (target.empty()) throw std::invalid_argument("there is no room in the buffer");
    return receive_into([target] { return target; }).size();
}

// By way of the thread's scratch: whoever waits has no memory of its own, nothing is zeroed first, and
// the string is as long as it has to be.
bytes connected_socket::receive(std::size_t max_bytes) {
    if (max_bytes == 0) throw std::invalid_argument("max_bytes must be a positive integer");
    std::size_t const most = std::min(max_bytes, datagram_scratch_size);
    buffer const came =
        receive_into([most] { return as_buffer(std::span(datagram_scratch(), most)); });
    if (came.empty()) throw end_of_stream();
    return {reinterpret_cast<char const*>(came.data()), came.size()};
}

void connected_socket::send(bytes_view data) {
    descriptor_use use(descriptor_, access::write, "writing to");
    enter_blocking_call("socket send");
    send_all(use, data);
}

void connected_socket::send(std::span<bytes_view const> parts) {
    descriptor_use use(descriptor_, access::write, "writing to");
    enter_blocking_call("socket send");
    while (!parts.empty()) {
        std::array<::iovec, parts_at_once> vector;
        std::size_t const count = std::min(parts.size(), vector.size());
        for (std::size_t part = 0; part < count; ++part)
            vector[part] = {const_cast<std::byte*>(parts[part].data()), parts[part].size()};
        send_vector(use, std::span(vector).first(count));
        parts = parts.subspan(count);
    }
}

std::uint64_t connected_socket::send_file(int file, std::uint64_t offset, std::uint64_t count) {
    static constexpr char const* call = "socket send_file";
    descriptor_use use(descriptor_, access::write, "writing to");
    std::uint64_t done = 0;
    do {
        enter_blocking_call(call);
        auto const most = std::size_t(std::min(count - done, most_of_file));
        if (!is_cached(file, offset + done, most)) read_into_cache(file, offset + done, most);
        ssize_t const sent = use.retry(call, [&](int fd) {
            auto place = ::off_t(offset + done);
            return without_pipe_signal(most, [&] { return ::sendfile(fd, file, &place, most); });
        });
        if (sent == 0) break; // the file has ended
        if (sent < 0 && concerns_the_file(int(-sent)))
            throw std::system_error(int(-sent), std::system_category(), "send_file");
        if (sent < 0) fail_send(use, int(-sent));
        done += std::uint64_t(sent);
    } while (done < count);
    return done;
}

void connected_socket::send_eof() {
    refuse_in_forked_child("send_eof"); // it would end the parent's connection, too
    descriptor_use const use(descriptor_, access::write, "writing to");
    if (::shutdown(use.fd(), SHUT_WR) == 0 || errno == ENOTCONN) return; // gone already
    throw_socket_error("shutdown", errno);
}

attribute_map connected_socket::attributes() const {
    return socket_attributes(descriptor_, family_, &remote_);
}

attribute_map socket_attributes(open_descriptor const& of, int family,
                                socket_address const* remote) {
    auto const local = [&of] {
        descriptor_use const use(of, access::look, "looking at");
        return local_address_of(use.fd());
    };
    attribute_map result{
        {socket_attribute::family, [family] { return family; }},
        {socket_attribute::raw_socket,
         [&of] { return descriptor_use(of, access::look, "looking at").fd(); }},
        {socket_attribute::local_address, local},
    };
    if (family != AF_UNIX)
        result.update({{socket_attribute::local_port, [local] { return local().port(); }}});
    if (remote == nullptr) return result;
    result.update({{socket_attribute::remote_address, [remote] { return *remote; }}});
    if (family != AF_UNIX)
        result.update({{socket_attribute::remote_port, [remote] { return remote->port(); }}});
    return result;
}

void check_socket(int fd, expected_socket const& expected) {
    int type = 0;
    ::socklen_t length = sizeof type;
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0)
        throw std::invalid_argument("the file descriptor does not refer to a socket");
    int const family = family_of(fd);
    if (std::ranges::find(expected.families, family) == expected.families.end())
        throw std::invalid_argument("address family mismatch: expected " +
                                    std::to_string(expected.families.front()) + ", got " +
                                    std::to_string(family));
    if (type != expected.type)
        throw std::invalid_argument("socket type mismatch: expected " +
                                    std::to_string(expected.type) + ", got " +
                                    std::to_string(type));
    if (expected.must_be == expected_socket::state::any) return;
    raw_address address;
    if (expected.must_be == expected_socket::state::connected) {
        if (::getpeername(fd, address.get(), &address.length) != 0)
            throw std::invalid_argument("the socket must be connected");
        return;
    }
    bool const is_bound = ::getsockname(fd, address.get(), &address.length) == 0 &&
                          (family == AF_UNIX ? address.length > sizeof(::sa_family_t)
                                             : address.to_address().port() != 0);
    if (!is_bound) throw std::invalid_argument("the socket must be bound to a local address");
}

void make_non_blocking(int fd) {
    int const flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        throw std::system_error(errno, std::system_category(), "fcntl");
}

void set_no_delay(int fd) noexcept {
    int const on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

bool is_tcp(int fd) noexcept {
    int protocol = 0;
    ::socklen_t length = sizeof protocol;
    return ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
           protocol == IPPROTO_TCP;
}

int family_of(int fd) {
    int family = AF_UNSPEC;
    ::socklen_t length = sizeof family;
    ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
    return family;
}

socket_address local_address_of(int fd) {
    raw_address address;
    if (::getsockname(fd, address.get(), &address.length) != 0)
        throw std::system_error(errno, std::system_category(), "getsockname");
    return address.to_address();
}

socket_address remote_address_of(int fd) {
    raw_address address;
    if (::getpeername(fd, address.get(), &address.length) != 0)
        throw std::system_error(errno, std::system_category(), "getpeername");
    return address.to_address();
}

int read_error(descriptor_use& use, ssize_t count) noexcept {
    if (count > 0) return 0;
    if (count == 0) return use.broken();
    int const error = int(-count);
    if (error != ENOBUFS && error != ENOMEM) use.set_broken(error);
    return error;
}

void throw_broken(char const* call, int error) {
    try {
        throw std::system_error(error, std::system_category(), call);
    } catch (std::system_error const& cause) {
        std::throw_with_nested(
            broken_resource_error(std::string("the connection is broken: ") + cause.what()));
    }
}

void throw_socket_error(char const* call, int error) {
    if (error == ENOBUFS || error == ENOMEM)
        throw std::system_error(error, std::system_category(), call);
    throw_broken(call, error);
}

} // namespace weft::detail
