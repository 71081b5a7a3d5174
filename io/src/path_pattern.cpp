#include "path_pattern.hpp"

#include "utf8.hpp"

#include <weft/io/path.hpp>

#include <algorithm>
#include <clocale>
#include <cwctype>
#include <stdexcept>

#include <locale.h>

namespace weft {

namespace detail {

namespace {

constexpr char32_t escaped_octet = 0xDC00; // where Python puts octets that are no UTF-8, too

std::u32string characters(std::string_view text) {
    std::u32string result;
    result.reserve(text.size());
    while (!text.empty()) {
        utf8_character const next = first_utf8_character(text);
        result += next.valid ? next.code : escaped_octet + static_cast<unsigned char>(text.front());
        text.remove_prefix(next.valid ? next.length : 1);
    }
    return result;
}

// The process's locale is not asked: the same pattern means the same everywhere.
std::u32string folded(std::u32string text) {
    static ::locale_t const unicode = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    for (char32_t& each : text)
        each = unicode != nullptr ? char32_t(::towlower_l(std::wint_t(each), unicode))
                                  : char32_t(std::towlower(std::wint_t(each)));
    return text;
}

std::u32string prepared(std::string_view text, bool case_sensitive) {
    return case_sensitive ? characters(text) : folded(characters(text));
}

} // namespace

name_pattern::name_pattern(std::string_view text, bool case_sensitive)
    : case_sensitive_(case_sensitive) {
    std::u32string const pattern = prepared(text, case_sensitive);
    for (std::size_t at = 0; at < pattern.size();) {
        char32_t const c = pattern[at++];
        if (c == U'*') {
            if (tokens_.empty() || tokens_.back().what != token::kind::many)
                tokens_.push_back({.what = token::kind::many});
        } else if (c == U'?') {
            tokens_.push_back({.what = token::kind::any});
        } else if (c == U'[') {
            at = parse_set(pattern, at);
        } else {
            tokens_.push_back({.what = token::kind::character, .character = c});
        }
    }
}

// From behind the bracket; gives where the pattern goes on. Without its end the bracket is itself.
std::size_t name_pattern::parse_set(std::u32string const& pattern, std::size_t from) {
    token set{.what = token::kind::set};
    set.negated = from < pattern.size() && pattern[from] == U'!';
    std::size_t at = from + (set.negated ? 1 : 0);
    std::size_t const end = pattern.find(U']', at + 1); // one that comes first is a member
    if (end == std::u32string::npos) {
        tokens_.push_back({.what = token::kind::character, .character = U'['});
        return from;
    }
    while (at < end) {
        bool const is_range = at + 2 < end && pattern[at + 1] == U'-';
        char32_t const last = pattern[is_range ? at + 2 : at];
        if (pattern[at] <= last) set.ranges.push_back({pattern[at], last});
        at += is_range ? 3 : 1;
    }
    tokens_.push_back(std::move(set));
    return end + 1;
}

bool name_pattern::fits(token const& one, char32_t c) {
    if (one.what == token::kind::character) return one.character == c;
    if (one.what == token::kind::any) return true;
    bool const inside = std::ranges::any_of(
        one.ranges, [c](range const& each) { return each.first <= c && c <= each.last; });
    return inside != one.negated;
}

// Only the last star is ever taken up again: what the earlier ones matched can stay as it is.
bool name_pattern::matches(std::string_view text) const {
    std::u32string const name = prepared(text, case_sensitive_);
    std::size_t at = 0, token_at = 0;
    std::size_t star = tokens_.size(), star_at = 0;
    while (at < name.size()) {
        bool const here = token_at < tokens_.size();
        if (here && tokens_[token_at].what == token::kind::many) {
            star = token_at++;
            star_at = at;
        } else if (here && fits(tokens_[token_at], name[at])) {
            ++at;
            ++token_at;
        } else if (star < tokens_.size()) {
            token_at = star + 1;
            at = ++star_at;
        } else {
            return false;
        }
    }
    if (token_at < tokens_.size() && tokens_[token_at].what == token::kind::many) ++token_at;
    return token_at == tokens_.size();
}

std::vector<std::string> split_at_slashes(std::string_view text) {
    std::vector<std::string> result;
    for (;;) {
        std::size_t const end = text.find('/');
        result.emplace_back(text.substr(0, end));
        if (end == std::string_view::npos) return result;
        text.remove_prefix(end + 1);
    }
}

namespace {

constexpr char any_depth[] = "**";

using flags = std::vector<char>; // not std::vector<bool>: nothing is packed

// "**" in the middle takes any number of parts, of which the root alone is none; at the end it
// takes what is left, but not nothing: "a/**" is not "a".
flags fits_any_depth(flags const& rest, std::vector<std::string> const& parts, bool last) {
    flags result(rest.size(), 0);
    if (last) {
        std::fill(result.begin(), result.end() - 1, char(1));
        return result;
    }
    char later = 0;
    for (std::size_t i = rest.size(); i-- > 0;) {
        if (i == 0 && parts.front().empty())
            later = char(std::find(rest.begin() + std::min<std::ptrdiff_t>(2, std::ssize(rest)),
                                   rest.end(), 1) != rest.end());
        result[i] = char(rest[i] || later);
        later = char(later || rest[i]);
    }
    return result;
}

flags fits_one(flags const& rest, std::vector<std::string> const& parts, std::string const& part,
               bool case_sensitive) {
    flags result(rest.size(), 0);
    name_pattern const pattern(part, case_sensitive);
    bool const may_be_empty = part != "*"; // as a part of its own it is never empty
    for (std::size_t i = 0; i < parts.size(); ++i)
        result[i] =
            char(rest[i + 1] && (may_be_empty || !parts[i].empty()) && pattern.matches(parts[i]));
    return result;
}

// From the end of the pattern on: fits[i] says that the parts from i on fit what has been looked
// at. So no pattern takes longer than its parts times those of the path.
bool fits_whole(std::vector<std::string> const& pattern, std::vector<std::string> const& parts,
                bool case_sensitive) {
    flags fits(parts.size() + 1, 0);
    fits.back() = 1;
    for (std::size_t row = pattern.size(); row-- > 0;)
        fits = pattern[row] == any_depth ? fits_any_depth(fits, parts, row + 1 == pattern.size())
                                         : fits_one(fits, parts, pattern[row], case_sensitive);
    return fits.front() != 0;
}

} // namespace
} // namespace detail

bool path::match(path const& pattern, match_options const& how) const {
    std::vector<std::string> const wanted = pattern.parts();
    if (wanted.empty()) throw std::invalid_argument("an empty pattern matches no path");
    std::vector<std::string> const mine = parts();
    bool const case_sensitive = how.case_sensitive.value_or(true);
    if (mine.size() < wanted.size()) return false;
    if (mine.size() > wanted.size() && pattern.is_absolute()) return false;
    std::size_t const skipped = mine.size() - wanted.size();
    for (std::size_t i = 0; i < wanted.size(); ++i)
        if (!detail::name_pattern(wanted[i], case_sensitive).matches(mine[skipped + i]))
            return false;
    return true;
}

bool path::full_match(path const& pattern, match_options const& how) const {
    return detail::fits_whole(detail::split_at_slashes(pattern.text_),
                              detail::split_at_slashes(text_), how.case_sensitive.value_or(true));
}

} // namespace weft
