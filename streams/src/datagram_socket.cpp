#include <weft/streams/detail/datagram_socket.hpp>

#include <weft/io/detail/raw_address.hpp>
#include <weft/io/error.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/streams/detail/connected_socket.hpp>

#include <memory>
#include <system_error>

#include <sys/socket.h>

namespace weft::detail {

namespace {

constexpr std::size_t largest_datagram = 65536;

// A refusal comes by ICMP and concerns what was sent before; the next datagram may get through
// (KD6).
[[noreturn]] void fail(char const* call, int error) {
    if (error == ECONNREFUSED || error == ECONNRESET) throw_broken(call, error);
    throw std::system_error(error, std::system_category(), call);
}

} // namespace

datagram_socket::datagram_socket(unique_fd fd) : family_(family_of(fd.get())) {
    descriptor_ = open_descriptor(std::move(fd));
}

datagram_socket::datagram_socket(unique_fd fd, socket_address remote)
    : family_(family_of(fd.get())), remote_(std::move(remote)) {
    descriptor_ = open_descriptor(std::move(fd));
}

datagram datagram_socket::receive() {
    static constexpr char const* call = "datagram receive";
    descriptor_use use(descriptor_, access::read, "reading from");
    enter_blocking_call(call);
    std::unique_ptr<char[]> const space(new char[largest_datagram]); // not zeroed
    raw_address from;
    ssize_t const count = use.retry(call, [&](int fd) {
        from.length = sizeof from.storage;
        return ::recvfrom(fd, space.get(), largest_datagram, MSG_DONTWAIT, from.get(),
                          &from.length);
    });
    if (count < 0) fail(call, int(-count));
    return {bytes(space.get(), std::size_t(count)),
            from.length == 0 ? remote_ : from.to_address()};
}

void datagram_socket::send(bytes_view data, socket_address const* to) {
    static constexpr char const* call = "datagram send";
    descriptor_use use(descriptor_, access::write, "writing to");
    enter_blocking_call(call);
    raw_address const target = to != nullptr ? raw_address(*to) : raw_address();
    ssize_t const count = use.retry(call, [&](int fd) {
        return ::sendto(fd, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                        to != nullptr ? target.get() : nullptr, to != nullptr ? target.length : 0);
    });
    if (count < 0) fail(call, int(-count));
}

attribute_map datagram_socket::attributes() const {
    return socket_attributes(descriptor_, family_,
                             remote_.family() == AF_UNSPEC ? nullptr : &remote_);
}

} // namespace weft::detail
