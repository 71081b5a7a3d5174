#include <weft/streams/detail/listening_socket.hpp>

#include <weft/io/detail/raw_address.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/detail/connected_socket.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace weft::detail {

namespace {

using namespace std::chrono_literals;

constexpr duration back_off = 100ms; // as Trio's serve_listeners
constexpr int largest_backlog = 65536;

// accept(2) hands over errors of the connection that it would have accepted: that one is gone, the
// next may be fine.
bool concerns_the_connection(int error) {
    switch (error) {
    case ECONNABORTED:
    case EPERM:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

bool is_shortage(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

[[noreturn]] void fail(int error) {
    throw std::system_error(error, std::system_category(), "accept");
}

} // namespace

listening_socket::listening_socket(unique_fd fd, int family)
    : descriptor_(std::move(fd)), family_(family) {}

listening_socket listening_socket::adopt(unique_fd&& fd, bool is_unix) {
    static constexpr std::array ip{AF_INET, AF_INET6};
    static constexpr std::array local{AF_UNIX};
    check_socket(fd.get(), {.families = is_unix ? std::span<int const>(local) : ip,
                            .type = SOCK_STREAM,
                            .must_be = expected_socket::state::bound});
    make_non_blocking(fd.get());
    int listens = 0;
    ::socklen_t length = sizeof listens;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &length);
    if (listens == 0 && ::listen(fd.get(), largest_backlog) != 0)
        throw std::system_error(errno, std::system_category(), "listen");
    int const family = family_of(fd.get());
    int const on = 1;
    if (family != AF_UNIX) // what is accepted inherits it
        ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return {std::move(fd), family};
}

// The labels are those of listener.cpp. Not to wait for a place in here: who closes the listener
// lets others run until nobody is in here any more.
int listening_socket::try_accept(accepted_socket& into, connection_place& place) {
    static constexpr char const* call = "accept";
    descriptor_use use(descriptor_, access::read, "accepting connections from");
    raw_address remote;
    ssize_t accepted = 0;
    bool has_place = true;
    do { // a cancellation point each time: a filter of system calls may say EPERM for ever
        enter_blocking_call(call);
        accepted = use.retry(call, [&](int fd) {
            has_place = place.try_take(); // P4
            if (!has_place) return 0;
            remote.length = sizeof remote.storage;
            int const got =
                ::accept4(fd, remote.get(), &remote.length, SOCK_NONBLOCK | SOCK_CLOEXEC); // P2
            if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
                place.give_back(); // P3
                errno = EAGAIN;
            }
            return got;
        });
    } while (accepted < 0 && concerns_the_connection(int(-accepted)));
    if (!has_place) return EAGAIN;
    if (accepted < 0) return int(-accepted);
    into.fd.reset(int(accepted));
    into.family = family_;
    into.remote = remote.to_address();
    return 0;
}

accepted_socket listening_socket::accept() {
    accepted_socket accepted;
    connection_place unlimited(nullptr);
    if (int const error = try_accept(accepted, unlimited)) fail(error);
    return accepted;
}

accepted_socket listening_socket::accept_or_back_off(connection_place& place) {
    accepted_socket accepted;
    for (bool told = false;;) {
        waits_.wait_for(place); // P1
        int const error = try_accept(accepted, place);
        if (error == 0) return accepted;
        if (error == EAGAIN) continue;
        if (!is_shortage(error)) fail(error);
        place.give_back();
        if (!std::exchange(told, true))
            std::fprintf(stderr, "weft: accept: %s; trying again\n",
                         std::system_category().message(error).c_str());
        sleep(back_off);
    }
}

attribute_map listening_socket::attributes() const {
    return socket_attributes(descriptor_, family_, nullptr);
}

} // namespace weft::detail
