#include <weft/streams/detail/datagram_socket.hpp>

#include "datagram_scratch.hpp"

#include <weft/io/detail/raw_address.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/streams/detail/connected_socket.hpp>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <system_error>

#include <sys/socket.h>

// Several datagrams in one system call, for UDP. It waits for the first one only: what a call did is
// either nothing or told by its result, also when it is cancelled.

namespace weft::detail {

namespace {

using headers = std::array<::mmsghdr, datagrams_at_once>;

// What the kernel needs to know of so many datagrams; on the stack, 6 KiB.
struct batch {
    headers messages{};
    std::array<::iovec, datagrams_at_once> parts{};
    std::array<raw_address, datagrams_at_once> addresses;

    ::msghdr& prepare(std::size_t place, char* data, std::size_t size) {
        parts[place] = {data, size};
        ::msghdr& header = messages[place].msg_hdr;
        header = {};
        header.msg_iov = &parts[place];
        header.msg_iovlen = 1;
        return header;
    }
    void set_address(std::size_t place, ::socklen_t length) {
        messages[place].msg_hdr.msg_name = &addresses[place].storage;
        messages[place].msg_hdr.msg_namelen = length;
    }
};

void prepare_to_receive(batch& into, std::size_t count) {
    char* const space = datagram_scratch();
    for (std::size_t place = 0; place < count; ++place) {
        into.prepare(place, space + place * usual_datagram, usual_datagram);
        into.set_address(place, sizeof into.addresses[place].storage);
    }
}

ssize_t send_batch(descriptor_use& use, batch& items, std::size_t count) {
    return use.retry("datagram send", [&](int fd) {
        return ::sendmmsg(fd, items.messages.data(), unsigned(count), MSG_NOSIGNAL | MSG_DONTWAIT);
    });
}

} // namespace

std::vector<datagram> datagram_socket::receive_many(std::size_t most) {
    static constexpr char const* call = "datagram receive";
    if (most == 0) throw std::invalid_argument("the number of datagrams must not be 0");
    descriptor_use use(descriptor_, access::read, "reading from");
    enter_blocking_call(call);
    batch received;
    std::size_t const room = std::min(most, datagrams_at_once);
    std::vector<datagram> result;
    result.reserve(room);
    ssize_t const count = use.retry(call, [&](int fd) {
        prepare_to_receive(received, room); // each time: the scratch is this thread's
        return ::recvmmsg(fd, received.messages.data(), unsigned(room), MSG_DONTWAIT, nullptr);
    });
    if (count < 0) fail_receive(int(-count));
    for (std::size_t place = 0; place < std::size_t(count); ++place) {
        ::mmsghdr const& message = received.messages[place];
        raw_address& from = received.addresses[place];
        from.length = message.msg_hdr.msg_namelen;
        result.push_back({bytes(static_cast<char*>(message.msg_hdr.msg_iov->iov_base),
                                message.msg_len),
                          from.length != 0 ? from.to_address() : remote_});
    }
    return result;
}

std::size_t datagram_socket::send_many(std::span<datagram const> items) {
    descriptor_use use(descriptor_, access::write, "writing to");
    enter_blocking_call("datagram send");
    if (items.empty()) return 0;
    batch sent;
    std::size_t const count = std::min(items.size(), datagrams_at_once);
    for (std::size_t place = 0; place < count; ++place) {
        bytes const& data = items[place].data;
        sent.prepare(place, const_cast<char*>(data.data()), data.size());
        sent.addresses[place] = raw_address(items[place].address);
        sent.set_address(place, sent.addresses[place].length);
    }
    ssize_t const done = send_batch(use, sent, count);
    if (done < 0) fail_send(int(-done), &items.front().address);
    return std::size_t(done);
}

std::size_t datagram_socket::send_many(std::span<bytes const> items) {
    descriptor_use use(descriptor_, access::write, "writing to");
    enter_blocking_call("datagram send");
    if (items.empty()) return 0;
    batch sent;
    std::size_t const count = std::min(items.size(), datagrams_at_once);
    for (std::size_t place = 0; place < count; ++place)
        sent.prepare(place, const_cast<char*>(items[place].data()), items[place].size());
    ssize_t const done = send_batch(use, sent, count);
    if (done < 0) fail_send(int(-done), nullptr);
    return std::size_t(done);
}

} // namespace weft::detail
