#pragma once

namespace weft {

/// Waits until a descriptor can be read from, or written to, without blocking: there are data, the
/// end, or an error to be told.
///
/// For descriptors that the program owns, not for those of weft's streams. Level-triggered: what is
/// ready already is found at once. One task for each direction; regular files are always ready.
/// Before the descriptor is closed elsewhere, notify_closing() must be called: else those who wait are
/// not told, and when they leave, or others come to wait for the number, they may take a new owner of
/// it, a stream of weft's, too, off the poller, who then waits for ever.
///
/// Cancellation  a cancellation point; nothing is left behind
/// Errors        closed_resource_error (notify_closing() was called); busy_resource_error (a second
///               task for the same direction); std::system_error (EBADF)
/// Source        AnyIO wait_readable, wait_writable
void wait_readable(int fd);
void wait_writable(int fd);

/// The same. Source: AnyIO wait_socket_readable, wait_socket_writable
void wait_socket_readable(int fd);
void wait_socket_writable(int fd);

/// Wakes those who wait for the descriptor with closed_resource_error; then it may be closed. Any
/// thread. Source: AnyIO notify_closing
void notify_closing(int fd);

} // namespace weft
