#pragma once

#include <weft/streams/any_byte_stream.hpp>

namespace weft {

/// The standard streams of this process, whatever they lead to: a terminal, a pipe, a socket, a
/// file or a device. Waiting for a terminal or a pipe takes no thread, can be cancelled, and delays
/// nobody who wants to leave.
///
/// The descriptors 0, 1 and 2 are shared with other processes, such as the shell, and are left as
/// they are: they stay blocking, and closing the stream does not close them. Nothing is buffered,
/// so streams and std::cin may be used in turns; several streams take what comes in turns, too.
///
/// Where the system offers no way to read without blocking (a terminal of another user that other
/// processes read as well), a thread reads; one that is cancelled leaves the thread behind, which
/// does not delay the end of run(), and what that thread reads is received next. A close() leaves it
/// behind, too, and then what it reads is lost.
///
/// Threads       any task; one receives and one sends at a time
/// Cancellation  as byte_receive_stream, byte_send_stream. Regular files: a cancellation point on
///               entry; then it is finished first
/// Errors        those of the streams; here std::system_error (EBADF: it is not open)
/// Source        AnyIO wrap_file(sys.stdin.buffer)
any_byte_receive_stream standard_input();
any_byte_send_stream standard_output();
any_byte_send_stream standard_error();

/// The same for any descriptor that belongs to somebody else, or that others use as well. It must
/// stay open during the call only.
any_byte_receive_stream receive_from_shared(int fd);
any_byte_send_stream send_to_shared(int fd);

} // namespace weft
