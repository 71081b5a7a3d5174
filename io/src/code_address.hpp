#pragma once

#include <weft/io/detail/frame.hpp>

namespace weft::detail {

/// Where code is, said so that another process of the same program finds it: the file it was loaded
/// from, its place in it, and a fingerprint by which another version of the file is found out.
///
/// Errors: std::invalid_argument (in no file), std::runtime_error (the file is not loaded there, or
/// is another one)
void write_code_address(frame_writer&, void const*);
void const* read_code_address(frame_reader&);

} // namespace weft::detail
