#pragma once

#include <weft/io/address.hpp>

#include <sys/socket.h>

namespace weft::detail {

/// A socket address as system calls take it.
struct raw_address {
    ::sockaddr_storage storage{};
    ::socklen_t length = sizeof storage; // room, before a call that fills it

    raw_address() noexcept = default;
    explicit raw_address(socket_address const&) noexcept;

    ::sockaddr* get() noexcept { return reinterpret_cast<::sockaddr*>(&storage); }
    ::sockaddr const* get() const noexcept { return reinterpret_cast<::sockaddr const*>(&storage); }

    /// The default address for families that are not known here.
    socket_address to_address() const;
    static socket_address to_address(::sockaddr const*, ::socklen_t);
};

} // namespace weft::detail
