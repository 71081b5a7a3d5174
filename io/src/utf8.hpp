#pragma once

#include <cstddef>
#include <string_view>

namespace weft::detail {

/// What a text begins with.
struct utf8_character {
    bool valid = false;      ///< a character of UTF-8: no surrogate, nothing longer than it must be
    bool incomplete = false; ///< not valid, but it would be with more octets behind it
    std::size_t length = 1;  ///< of the character, or of what is wrong as one piece
    char32_t code = 0;
};

/// The text must not be empty.
utf8_character first_utf8_character(std::string_view text);

/// How many octets from the front are ASCII; quick.
std::size_t leading_ascii(std::string_view text);

} // namespace weft::detail
