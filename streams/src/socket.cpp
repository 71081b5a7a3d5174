#include <weft/streams/socket.hpp>

#include <array>

#include <sys/socket.h>

namespace weft {

socket_stream socket_stream::from_socket(unique_fd&& fd) {
    static constexpr std::array families{AF_INET, AF_INET6};
    detail::check_socket(fd.get(), {.families = families,
                                    .type = SOCK_STREAM,
                                    .must_be = detail::expected_socket::state::connected});
    detail::make_non_blocking(fd.get());
    detail::set_no_delay(fd.get());
    int const family = detail::family_of(fd.get());
    socket_address remote = detail::remote_address_of(fd.get());
    bool const tcp = detail::is_tcp(fd.get());
    detail::open_descriptor descriptor(std::move(fd), tcp);
    return socket_stream(detail::connected_socket(std::move(descriptor), family, std::move(remote)));
}

} // namespace weft
