#pragma once

#include <weft/io/detail/frame.hpp>

#include <exception>

namespace weft::detail {

/// The exception that is being handled: its type, its text and, if it has one, its code.
void write_current_exception(frame_writer&);

/// Throws it: as itself if its type is one of the standard library's, else as weft::error that
/// names the type.
[[noreturn]] void throw_received_exception(frame_reader&);

} // namespace weft::detail
