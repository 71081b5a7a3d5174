#include <weft/io/detail/raw_address.hpp>
#include <weft/io/resolver.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/streams/tcp.hpp>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <memory>
#include <system_error>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace weft {

namespace {

using detail::raw_address;

constexpr int largest_backlog = 65536;

[[noreturn]] void fail(int error, char const* call, socket_address const& with) {
    throw std::system_error(error, std::system_category(),
                            std::string(call) + " " + with.to_string());
}

bool set(int fd, int level, int option, int value) {
    return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

enum class stack : bool { single, dual };

unique_fd bind_socket(socket_address const& to, stack kind, tcp_listener_options const& options) {
    unique_fd fd(::socket(to.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) fail(errno, "socket for", to);
    set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (options.reuse_port && !set(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1))
        fail(errno, "SO_REUSEPORT for", to);
    if (to.family() == AF_INET6) set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, kind == stack::single);
    set(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1); // what is accepted inherits it
    raw_address const address(to);
    if (::bind(fd.get(), address.get(), address.length) != 0) fail(errno, "bind", to);
    if (::listen(fd.get(), std::min(options.backlog, largest_backlog)) != 0)
        fail(errno, "listen on", to);
    return fd;
}

// A want of descriptors or memory says nothing about IPv6 and is thrown. All else does: there is none, or it is
// forbidden here.
bool has_dual_stack() {
    socket_address const anywhere(ip_address::any_v6(), 0);
    raw_address const address(anywhere);
    unique_fd const fd(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd && set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0) &&
        ::bind(fd.get(), address.get(), address.length) == 0)
        return true;
    int const error = errno;
    if (error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS)
        fail(error, "socket for", anywhere);
    return false;
}

// Without doublets, which glibc gives for names with several entries; IPv4 before IPv6.
std::vector<socket_address> addresses_for(tcp_listener_options const& options) {
    std::vector<socket_address> result;
    for (address_info& info :
         getaddrinfo(options.local_host, std::to_string(options.local_port),
                     {.family = options.family, .type = SOCK_STREAM, .flags = AI_PASSIVE}))
        result.push_back(std::move(info.address));
    std::ranges::sort(result);
    auto const doublets = std::ranges::unique(result);
    result.erase(doublets.begin(), doublets.end());
    return result;
}

bool is_no_address_here(std::error_code error) {
    return error == std::errc::address_not_available ||
           error == std::errc::address_family_not_supported;
}

// A name may have addresses that this host has not: "localhost" is [::1], too, where IPv6 is off.
std::vector<unique_fd> bind_all(std::vector<socket_address> const& addresses,
                                tcp_listener_options const& options) {
    std::vector<unique_fd> sockets;
    std::exception_ptr not_here;
    std::uint16_t port = options.local_port;
    for (socket_address const& each : addresses) {
        try {
            sockets.push_back(bind_socket({each.ip(), port}, stack::single, options));
        } catch (std::system_error const& failure) {
            if (!is_no_address_here(failure.code())) throw;
            if (!not_here) not_here = std::current_exception();
            continue;
        }
        if (port == 0) port = detail::local_address_of(sockets.front().get()).port();
    }
    if (sockets.empty() && not_here) std::rethrow_exception(not_here);
    return sockets;
}

// The kernel's choice for the first address may be taken on another one; then the others choose.
std::vector<unique_fd> bind_same_port(std::vector<socket_address> addresses,
                                      tcp_listener_options const& options) {
    std::vector<std::exception_ptr> failures;
    for (std::size_t attempt = 0; attempt < addresses.size(); ++attempt) {
        try {
            return bind_all(addresses, options);
        } catch (std::system_error const& failure) {
            bool const may_retry = options.local_port == 0 && addresses.size() > 1 &&
                                   failure.code() == std::errc::address_in_use;
            if (!may_retry) throw;
            failures.push_back(std::current_exception());
        }
        std::ranges::rotate(addresses, addresses.begin() + 1);
    }
    try {
        throw exception_group("several bind attempts failed", std::move(failures));
    } catch (exception_group const&) {
        std::throw_with_nested(std::system_error(
            std::make_error_code(std::errc::address_in_use),
            "could not create " + std::to_string(addresses.size()) +
                " listeners with a consistent port"));
    }
}

} // namespace

multi_listener<socket_stream> create_tcp_listener(tcp_listener_options options) {
    detail::enter_blocking_call("create_tcp_listener");
    std::vector<unique_fd> sockets;
    if (options.local_host.empty() && options.family == AF_UNSPEC && has_dual_stack())
        sockets.push_back(bind_socket({ip_address::any_v6(), options.local_port}, stack::dual,
                                      options));
    else
        sockets = bind_same_port(addresses_for(options), options);

    std::vector<std::unique_ptr<listener<socket_stream>>> listeners;
    for (unique_fd& fd : sockets) {
        int const family = detail::family_of(fd.get());
        listeners.push_back(std::make_unique<socket_listener<socket_stream>>(
            detail::listening_socket(std::move(fd), family)));
    }
    return multi_listener<socket_stream>(std::move(listeners));
}

} // namespace weft
