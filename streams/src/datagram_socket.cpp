#include <weft/streams/detail/datagram_socket.hpp>

#include "datagram_scratch.hpp"

#include <weft/io/detail/raw_address.hpp>
#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/detail/connected_socket.hpp>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace weft::detail {

namespace {

using namespace std::chrono_literals;

constexpr duration shortest_pause = 200us;
constexpr duration longest_pause = 50ms;

// A refusal comes by ICMP and concerns what was sent before; the next datagram may get through
// (KD6). EHOSTUNREACH, in IPv6 EACCES, is what firewalls say. ENOTCONN: a UNIX peer was found dead
// by an earlier send.
bool is_refusal(int error) {
    switch (error) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ENOTCONN:
    case ENOPROTOOPT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENONET:
    case EACCES:
        return true;
    default:
        return false;
    }
}

// The next datagram's length, for UNIX; UDP's are never longer than usual_datagram.
std::size_t length_of_next(int fd, int family) {
    int length = 0;
    if (family != AF_UNIX || ::ioctl(fd, SIOCINQ, &length) != 0) return 0;
    return std::size_t(length);
}

// Until the pause is over, or the socket is closed.
void pause_in(descriptor_use& use, char const* what, duration pause) {
    move_on_after(pause, [&use, what] {
        for (;;) {
            use.prepare();
            use.wait(what);
        }
    });
}

// That the queue of a receiver has room again the kernel tells only to those who are connected to
// it; the others look again after a pause (KD8). EPOLLOUT speaks of the socket's own buffer, and the
// send that failed is itself an edge, since it gave its memory back: whoever follows that one spins.
template <class Call>
ssize_t retry_with_pauses(descriptor_use& use, char const* what, Call const& call) {
    for (duration pause = shortest_pause;;) {
        use.prepare();
        ssize_t const result = call(use.fd());
        if (result >= 0) return result;
        int const error = errno; // read at once: the pause may end on another thread
        if (error == EAGAIN || error == EWOULDBLOCK) {
            pause_in(use, what, pause);
            pause = std::min(2 * pause, longest_pause);
        } else if (error != EINTR) {
            return -ssize_t(error);
        }
    }
}

// A run() in a destructor of a static object comes after those of the thread, and makes a new one.
constinit thread_local char* scratch = nullptr;
struct free_scratch {
    ~free_scratch() { delete[] std::exchange(scratch, nullptr); }
};

} // namespace

[[gnu::noinline]] char* datagram_scratch() {
    if (scratch == nullptr) {
        thread_local free_scratch const at_end_of_thread;
        scratch = new char[datagram_scratch_size]; // not zeroed: memory only where it is used
    }
    return scratch;
}

datagram_socket::datagram_socket(unique_fd&& fd) : family_(family_of(fd.get())) {
    descriptor_ = open_descriptor(std::move(fd));
}

datagram_socket::datagram_socket(unique_fd&& fd, socket_address remote)
    : family_(family_of(fd.get())), remote_(std::move(remote)) {
    descriptor_ = open_descriptor(std::move(fd));
}

datagram datagram_socket::receive() {
    static constexpr char const* call = "datagram receive";
    descriptor_use use(descriptor_, access::read, "reading from");
    enter_blocking_call(call);
    std::unique_ptr<char[]> large; // for what the scratch has no room for
    char* space = nullptr;
    std::size_t room = usual_datagram;
    raw_address from;
    ssize_t const count = use.retry(call, [&](int fd) {
        if (std::size_t const next = length_of_next(fd, family_); next > room) {
            large.reset(new char[next]);
            room = next;
        }
        space = large ? large.get() : datagram_scratch();
        from.length = sizeof from.storage;
        return ::recvfrom(fd, space, room, MSG_DONTWAIT | MSG_TRUNC, from.get(), &from.length);
    });
    if (count < 0) fail_receive(int(-count));
    if (std::size_t(count) > room) fail_receive(EMSGSIZE); // another process took the one we saw
    socket_address sender = from.length != 0 ? from.to_address() : remote_;
    if (sender.family() == AF_UNSPEC && family_ == AF_UNIX)
        sender = socket_address::parse("unix:"); // it has no name
    return {bytes(space, std::size_t(count)), std::move(sender)};
}

void datagram_socket::send(bytes_view data, socket_address const* to) {
    static constexpr char const* what = "datagram send";
    descriptor_use use(descriptor_, access::write, "writing to");
    enter_blocking_call(what);
    raw_address const target = to != nullptr ? raw_address(*to) : raw_address();
    auto const call = [&](int fd) {
        return ::sendto(fd, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                        to != nullptr ? target.get() : nullptr, to != nullptr ? target.length : 0);
    };
    ssize_t const count = family_ == AF_UNIX && to != nullptr
                              ? retry_with_pauses(use, what, call)
                              : use.retry(what, call);
    if (count < 0) fail_send(int(-count), to);
}

void datagram_socket::fail_receive(int error) {
    if (is_refusal(error)) throw_broken("datagram receive", error);
    throw std::system_error(error, std::system_category(), "datagram receive");
}

void datagram_socket::fail_send(int error, socket_address const* to) const {
    if (to == nullptr && is_refusal(error)) throw_broken("datagram send", error);
    std::string const where = to != nullptr ? " to " + to->to_string() : "";
    throw std::system_error(error, std::system_category(), "datagram send" + where);
}

attribute_map datagram_socket::attributes() const {
    return socket_attributes(descriptor_, family_, is_connected() ? &remote_ : nullptr);
}

} // namespace weft::detail
