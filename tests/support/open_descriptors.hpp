#pragma once

#include <cstddef>
#include <filesystem>
#include <iterator>

namespace weft::test {

/// How many descriptors this process has open, and one more: that of the look.
inline std::ptrdiff_t open_descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

} // namespace weft::test
