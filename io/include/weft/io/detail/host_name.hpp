#pragma once

#include <string>

namespace weft::detail {

/// A host name as DNS and certificates have it: IDNA 2008, UTS 46 mapping, non-transitional. ASCII
/// is passed as it is. Errors: std::invalid_argument
std::string to_ascii_host(std::string const& name);

bool is_ascii(std::string const& name) noexcept;

} // namespace weft::detail
