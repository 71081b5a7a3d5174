#include <weft/streams/udp.hpp>

#include <weft/io/detail/raw_address.hpp>
#include <weft/io/resolver.hpp>
#include <weft/runtime/detail/parking.hpp>

#include <array>
#include <stdexcept>
#include <system_error>

#include <netdb.h>
#include <sys/socket.h>

namespace weft {

namespace {

using detail::raw_address;

constexpr std::array ip_families{AF_INET, AF_INET6};

[[noreturn]] void fail(int error, char const* call, socket_address const& with) {
    throw std::system_error(error, std::system_category(),
                            std::string(call) + " " + with.to_string());
}

socket_address resolve(std::string const& host, std::uint16_t port, int family, int flags) {
    auto const found = getaddrinfo(host, std::to_string(port),
                                   {.family = family, .type = SOCK_DGRAM, .flags = flags});
    if (found.empty()) throw std::system_error(EAI_NONAME, resolver_category(), host);
    return found.front().address;
}

unique_fd make_socket(int family, udp_options const& options, socket_address const* local) {
    unique_fd fd(::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) throw std::system_error(errno, std::system_category(), "socket");
    int const on = 1;
    if (options.reuse_port &&
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        throw std::system_error(errno, std::system_category(), "SO_REUSEPORT");
    if (local == nullptr) return fd;
    raw_address const address(*local);
    if (::bind(fd.get(), address.get(), address.length) != 0) fail(errno, "bind", *local);
    return fd;
}

} // namespace

udp_socket udp_socket::from_socket(unique_fd&& fd) {
    detail::check_socket(fd.get(), {.families = ip_families,
                                    .type = SOCK_DGRAM,
                                    .must_be = detail::expected_socket::state::bound});
    detail::make_non_blocking(fd.get());
    return udp_socket(detail::datagram_socket(std::move(fd)));
}

connected_udp_socket connected_udp_socket::from_socket(unique_fd&& fd) {
    detail::check_socket(fd.get(), {.families = ip_families,
                                    .type = SOCK_DGRAM,
                                    .must_be = detail::expected_socket::state::connected});
    detail::make_non_blocking(fd.get());
    socket_address remote = detail::remote_address_of(fd.get());
    return connected_udp_socket(detail::datagram_socket(std::move(fd), std::move(remote)));
}

void udp_socket::sendto(bytes_view data, std::string host, port_number port) {
    socket_address const to = resolve(host, port, socket_.family(), 0);
    socket_.send(data, &to);
}

udp_socket create_udp_socket(udp_options options) {
    detail::enter_blocking_call("create_udp_socket");
    if (options.family == AF_UNSPEC && options.local_host.empty())
        throw std::invalid_argument("either family or local_host must be given");
    socket_address const local =
        resolve(options.local_host, options.local_port, options.family, AI_PASSIVE);
    return udp_socket(detail::datagram_socket(make_socket(local.family(), options, &local)));
}

connected_udp_socket create_connected_udp_socket(std::string host, port_number port,
                                                 udp_options options) {
    detail::enter_blocking_call("create_connected_udp_socket");
    bool const has_local_host = !options.local_host.empty();
    bool const is_bound = has_local_host || options.local_port != 0;
    socket_address local;
    if (has_local_host) { // the remote one is of its family
        local = resolve(options.local_host, options.local_port, options.family, AI_PASSIVE);
        options.family = local.family();
    }
    socket_address const remote = resolve(host, port, options.family, 0);
    if (is_bound && !has_local_host)
        local = resolve("", options.local_port, remote.family(), AI_PASSIVE);
    unique_fd fd = make_socket(remote.family(), options, is_bound ? &local : nullptr);
    raw_address const to(remote);
    if (::connect(fd.get(), to.get(), to.length) != 0) fail(errno, "connect to", remote);
    return connected_udp_socket(detail::datagram_socket(std::move(fd), remote));
}

} // namespace weft
