#include <weft/streams/detail/listening_socket.hpp>

#include <weft/io/detail/open_descriptor.hpp>
#include <weft/io/detail/raw_address.hpp>
#include <weft/io/error.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/detail/closable_wait.hpp>
#include <weft/streams/detail/connected_socket.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

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

struct listening_socket::shared {
    shared(unique_fd&& fd, int of, bool delays)
        : tcp(is_tcp(fd.get())), descriptor(std::move(fd)), family(of), may_delay(delays) {}

    int try_accept(accepted_socket&, connection_place&); // 0, or the errno; EAGAIN: no place

    bool const tcp; // and so are those that it accepts
    open_descriptor descriptor;
    closable_wait for_a_place;
    int const family;
    bool const may_delay; // those in its queue may be from before it had TCP_NODELAY to hand on
};

listening_socket::listening_socket(unique_fd fd, int family)
    : own_(std::make_shared<shared>(std::move(fd), family, false)) {}

listening_socket::~listening_socket() {
    if (!own_) return;
    own_->for_a_place.close();
    own_->descriptor.close();
}

listening_socket::shared& listening_socket::own() const {
    if (!own_) throw closed_resource_error();
    return *own_;
}

void listening_socket::close() {
    auto const alive = own_;
    if (!alive) return;
    alive->for_a_place.close();
    alive->descriptor.close_completely(); // KD7
}

listening_socket listening_socket::adopt(unique_fd&& fd, bool is_unix) {
    static constexpr std::array ip{AF_INET, AF_INET6};
    static constexpr std::array local{AF_UNIX};
    check_socket(fd.get(), {.families = is_unix ? std::span<int const>(local) : ip,
                            .type = SOCK_STREAM,
                            .must_be = expected_socket::state::bound});
    int listens = 0;
    ::socklen_t length = sizeof listens;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &length);
    if (listens == 0 && ::listen(fd.get(), largest_backlog) != 0) {
        if (errno == EINVAL) throw std::invalid_argument("the socket is connected: it cannot listen");
        throw std::system_error(errno, std::system_category(), "listen");
    }
    make_non_blocking(fd.get());
    int const family = family_of(fd.get());
    return listening_socket(std::make_shared<shared>(std::move(fd), family, family != AF_UNIX));
}

// The labels are those of listener.cpp. Not to wait for a place in here: who closes the listener
// lets others run until nobody is in here any more.
int listening_socket::shared::try_accept(accepted_socket& into, connection_place& place) {
    static constexpr char const* call = "accept";
    descriptor_use use(descriptor, access::read, "accepting connections from");
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
    unique_fd fd{int(accepted)};
    if (may_delay) set_no_delay(fd.get());
    try {
        into.descriptor = open_descriptor(std::move(fd), tcp);
    } catch (std::system_error const&) {
        return ENOMEM;
    }
    into.family = family;
    into.remote = remote.to_address();
    return 0;
}

accepted_socket listening_socket::accept() {
    own();
    auto const alive = own_; // who closes may destroy this object
    accepted_socket accepted;
    connection_place unlimited(nullptr);
    if (int const error = alive->try_accept(accepted, unlimited)) fail(error);
    return accepted;
}

accepted_socket listening_socket::accept_or_back_off(connection_place& place) {
    own();
    auto const alive = own_;
    accepted_socket accepted;
    for (bool told = false;;) {
        if (!place.try_take()) alive->for_a_place.run([&] { place.wait(); }); // P1
        int const error = alive->try_accept(accepted, place);
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
    return socket_attributes(own().descriptor, own().family, nullptr);
}

} // namespace weft::detail
