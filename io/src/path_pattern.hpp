#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace weft::detail {

/// A shell pattern for one name, as Python's fnmatch has it: `*`, `?`, `[set]`, `[!set]`.
///
/// A character is a code point; an octet that is no UTF-8 is a character of its own.
class name_pattern {
public:
    explicit name_pattern(std::string_view pattern, bool case_sensitive = true);

    bool matches(std::string_view name) const;

private:
    struct range {
        char32_t first;
        char32_t last;
    };
    struct token {
        enum class kind : unsigned char { character, any, many, set } what;
        bool negated = false;
        char32_t character = 0;
        std::vector<range> ranges{};
    };

    static bool fits(token const&, char32_t);
    std::size_t parse_set(std::u32string const& pattern, std::size_t from);

    std::vector<token> tokens_;
    bool case_sensitive_;
};

/// What stands between slashes; "a//b/" has the parts "a", "", "b", "".
std::vector<std::string> split_at_slashes(std::string_view text);

} // namespace weft::detail
