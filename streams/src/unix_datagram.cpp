#include <weft/streams/unix_socket.hpp>

#include "unix_name.hpp"

#include <weft/runtime/detail/parking.hpp>

#include <array>
#include <optional>
#include <stdexcept>

#include <sys/socket.h>

namespace weft {

namespace {

constexpr std::array families{AF_UNIX};

void prepare(unique_fd const& fd, detail::expected_socket::state must_be) {
    detail::check_socket(fd.get(),
                         {.families = families, .type = SOCK_DGRAM, .must_be = must_be});
    detail::make_non_blocking(fd.get());
}

std::optional<socket_address> local_address(unix_datagram_options const& options) {
    if (!options.local_path) return {};
    return detail::unix_address(*options.local_path);
}

} // namespace

unix_datagram_socket unix_datagram_socket::from_socket(unique_fd&& fd) {
    prepare(fd, detail::expected_socket::state::any);
    return unix_datagram_socket(detail::datagram_socket(std::move(fd)));
}

void unix_datagram_socket::send(datagram item) {
    if (item.address.family() != AF_UNIX || item.address.path().empty())
        throw std::invalid_argument("not the name of a UNIX socket: '" +
                                    item.address.to_string() + "'");
    socket_.send(item.data, &item.address);
}

void unix_datagram_socket::sendto(bytes_view data, path const& name) {
    socket_address const to = detail::unix_address(name);
    socket_.send(data, &to);
}

connected_unix_datagram_socket connected_unix_datagram_socket::from_socket(unique_fd&& fd) {
    prepare(fd, detail::expected_socket::state::connected);
    socket_address remote = detail::remote_address_of(fd.get());
    return connected_unix_datagram_socket(detail::datagram_socket(std::move(fd), std::move(remote)));
}

unix_datagram_socket create_unix_datagram_socket(unix_datagram_options options) {
    auto const local = local_address(options);
    detail::enter_blocking_call("create_unix_datagram_socket");
    unique_fd fd = detail::make_unix_socket(SOCK_DGRAM, local);
    if (local) detail::bind_unix_socket(fd, *local, options.local_mode);
    return unix_datagram_socket(detail::datagram_socket(std::move(fd)));
}

// Connected first: when that fails, no file has been made yet.
connected_unix_datagram_socket create_connected_unix_datagram_socket(
    path const& name, unix_datagram_options options) {
    socket_address const remote = detail::unix_address(name);
    auto const local = local_address(options);
    detail::enter_blocking_call("create_connected_unix_datagram_socket");
    unique_fd fd = detail::make_unix_socket(SOCK_DGRAM, remote);
    detail::connect_unix_socket(fd, remote);
    if (local) detail::bind_unix_socket(fd, *local, options.local_mode);
    return connected_unix_datagram_socket(detail::datagram_socket(std::move(fd), remote));
}

} // namespace weft
