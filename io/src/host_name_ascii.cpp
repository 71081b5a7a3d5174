#include <weft/io/detail/host_name.hpp>

#include <algorithm>
#include <stdexcept>

// Without libidn2.

namespace weft::detail {

bool is_ascii(std::string const& name) noexcept {
    return std::ranges::all_of(name, [](char octet) { return (octet & 0x80) == 0; });
}

std::string to_ascii_host(std::string const& name) {
    if (is_ascii(name)) return name;
    throw std::invalid_argument("international host names need weft to be built with libidn2: '" +
                                name + "'");
}

} // namespace weft::detail
