#pragma once

#include <cstddef>

namespace weft::detail {

/// What UDP can carry is shorter, UNIX datagrams may be longer.
inline constexpr std::size_t usual_datagram = 65536;
inline constexpr std::size_t datagrams_at_once = 32;
inline constexpr std::size_t datagram_scratch_size = usual_datagram * datagrams_at_once;

/// Room of this thread for datagrams_at_once datagrams, or for what comes from a stream: for the moment
/// between a system call that fills it and the copy to where it belongs. Not to be kept across a
/// suspension.
char* datagram_scratch();

} // namespace weft::detail
