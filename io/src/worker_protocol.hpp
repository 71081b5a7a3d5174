#pragma once

#include <cstdint>

/// What a program and its worker processes say to each other, over one socket pair.
///
///     program                                worker
///                                            greeting, empty           once
///     call: entry, function, arguments
///                                            value: the result, or
///                                            exception: type, text, category, code
///     (closes the socket)                    ends
///
/// Each is a header and so many octets. Anything else is a breach, and ends the worker.
namespace weft::detail {

enum class frame_kind : std::uint32_t { greeting = 1, call, value, exception };

struct frame_header {
    static constexpr std::uint32_t valid_magic = 0x77656674; // "weft"

    std::uint32_t magic = valid_magic;
    frame_kind kind{};
    std::uint64_t size = 0;
};

/// argv[0] of a worker; argv[1] is the number of the socket. Defined beside what recognises it, so
/// that a static library brings that along.
extern char const* const worker_name;

} // namespace weft::detail
