#pragma once

#include <weft/io/address.hpp>
#include <weft/io/descriptor.hpp>
#include <weft/io/path.hpp>

#include <optional>

#include <sys/types.h>

/// What UNIX streams, listeners and datagrams do with the names of sockets.
namespace weft::detail {

/// A path that begins with NUL is an abstract name. Errors: std::invalid_argument (too long)
socket_address unix_address(path const&);

/// Non-blocking and close-on-exec. Errors: std::system_error with the name that it is for, if there is one
unique_fd make_unix_socket(int type, std::optional<socket_address> const& name);

/// In a thread: replaces a socket that is there. Suspends; not cut short by cancellation. Errors:
/// std::system_error with the name
void bind_unix_socket(unique_fd const&, socket_address const&, std::optional<::mode_t> mode);

/// Tries again while the listener's backlog is full. Suspends. Errors: std::system_error with the
/// name
void connect_unix_socket(unique_fd const&, socket_address const&);

[[noreturn]] void throw_unix_error(int error, char const* call, socket_address const& with);

} // namespace weft::detail
