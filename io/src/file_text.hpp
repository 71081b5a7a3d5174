#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace weft::detail {

enum class text_errors : unsigned char { strict, replace, ignore };

/// How a text file's UTF-8 and newlines are treated.
struct text_rules {
    text_errors errors = text_errors::strict;
    std::optional<std::string> newline{}; ///< as text_options::newline
};

/// Errors: std::invalid_argument (neither "", "strict", "replace" nor "ignore"; no such newline)
text_rules make_text_rules(std::string const& errors, std::optional<std::string> newline);

/// How much of a text is wanted, and how much of the input made it up.
struct text_demand {
    std::size_t characters; ///< at most
    bool line = false;      ///< no more than one line
};
struct text_step {
    std::size_t used = 0;       ///< octets of the input
    std::size_t characters = 0; ///< of the output
    bool complete = false;      ///< the demand is met; else there must be more input
};

/// Decodes from the front of the input, appending to `out`. Unless it is at the end, what may go on
/// in the next octets is left. Errors: std::invalid_argument (strict, and no UTF-8)
text_step read_text(text_rules const&, std::string_view input, bool at_end, text_demand,
                    std::string& out);

/// What writing the text means in the file, in UTF-8. `characters` receives their number. Errors:
/// std::invalid_argument (strict, and no UTF-8)
std::string written_text(text_rules const&, std::string_view text, std::size_t& characters);

} // namespace weft::detail
