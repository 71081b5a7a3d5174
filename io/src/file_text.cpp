#include "file_text.hpp"

#include "utf8.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace weft::detail {

namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD"; // U+FFFD

[[noreturn]] void refuse_octet(char octet) {
    constexpr char digits[] = "0123456789abcdef";
    auto const value = static_cast<unsigned char>(octet);
    throw std::invalid_argument(std::string("the text is no UTF-8: octet 0x") + digits[value / 16] +
                                digits[value % 16]);
}

// What stands for octets that are no character.
std::string_view substitute(text_errors errors, char octet) {
    if (errors == text_errors::strict) refuse_octet(octet);
    return errors == text_errors::replace ? replacement : std::string_view();
}

// One character of the input, or one newline of two.
struct piece {
    std::size_t used = 0; // 0: not known before there is more
    std::string_view text;
    bool ends_line = false;
};

piece next_newline(text_rules const& rules, std::string_view input, bool at_end) {
    bool const universal = !rules.newline || rules.newline->empty();
    bool const keep = rules.newline.has_value();
    std::string_view const all = "\r\n";
    if (universal) {
        if (input[0] == '\n') return {1, keep ? input.substr(0, 1) : "\n", true};
        if (input.size() == 1 && !at_end) return {};
        std::size_t const length = input.starts_with(all) ? 2 : 1;
        return {length, keep ? input.substr(0, length) : "\n", true};
    }
    std::string_view const wanted = *rules.newline;
    if (input.starts_with(wanted)) return {wanted.size(), wanted, true};
    if (wanted.starts_with(input) && !at_end) return {};
    return {1, input.substr(0, 1), false};
}

piece next_piece(text_rules const& rules, std::string_view input, bool at_end) {
    if (input[0] == '\r' || input[0] == '\n') return next_newline(rules, input, at_end);
    utf8_character const character = first_utf8_character(input);
    if (character.valid) return {character.length, input.substr(0, character.length)};
    if (character.incomplete && !at_end) return {};
    return {character.length, substitute(rules.errors, input[0])};
}

constexpr std::uint64_t every_octet = 0x0101010101010101u;

bool has_zero(std::uint64_t eight) {
    return ((eight - every_octet) & ~eight & (every_octet << 7)) != 0;
}

// How many octets from the front are ASCII and nothing that newline rules touch; '\n' alone is
// touched only where lines are wanted.
std::size_t leading_plain(std::string_view text, bool lines) {
    std::size_t at = 0;
    for (std::uint64_t eight; at + sizeof eight <= text.size(); at += sizeof eight) {
        std::memcpy(&eight, text.data() + at, sizeof eight);
        if ((eight & (every_octet << 7)) != 0 || has_zero(eight ^ (every_octet * '\r')) ||
            (lines && has_zero(eight ^ (every_octet * '\n'))))
            break;
    }
    auto const plain = [lines](char c) {
        return static_cast<signed char>(c) >= 0 && c != '\r' && !(lines && c == '\n');
    };
    while (at < text.size() && plain(text[at]))
        ++at;
    return at;
}

std::size_t count_characters(std::string_view text) {
    return std::size_t(std::ranges::count_if(
        text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0u) != 0x80u; }));
}

// The text as UTF-8 and nothing else.
std::string checked(text_errors errors, std::string_view text) {
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
        std::size_t const plain = leading_ascii(text);
        result += text.substr(0, plain);
        text.remove_prefix(plain);
        if (text.empty()) break;
        utf8_character const next = first_utf8_character(text);
        result += next.valid ? text.substr(0, next.length) : substitute(errors, text[0]);
        text.remove_prefix(next.length);
    }
    return result;
}

std::string with_newlines(std::string_view text, std::string_view newline) {
    std::string result;
    for (;;) {
        std::size_t const end = text.find('\n');
        result += text.substr(0, end);
        if (end == std::string_view::npos) return result;
        result += newline;
        text.remove_prefix(end + 1);
    }
}

} // namespace

text_rules make_text_rules(std::string const& errors, std::optional<std::string> newline) {
    text_rules rules;
    if (errors == "replace")
        rules.errors = text_errors::replace;
    else if (errors == "ignore")
        rules.errors = text_errors::ignore;
    else if (!errors.empty() && errors != "strict")
        throw std::invalid_argument("unknown error handler '" + errors +
                                    "': it is strict, replace or ignore");
    constexpr std::array<std::string_view, 4> known{"", "\n", "\r", "\r\n"};
    if (newline && std::ranges::find(known, *newline) == known.end())
        throw std::invalid_argument("illegal newline value");
    rules.newline = std::move(newline);
    return rules;
}

text_step read_text(text_rules const& rules, std::string_view input, bool at_end,
                    text_demand wanted, std::string& out) {
    text_step step;
    while (step.characters < wanted.characters && step.used < input.size()) {
        std::string_view const rest = input.substr(step.used);
        std::size_t const plain =
            std::min(leading_plain(rest, wanted.line), wanted.characters - step.characters);
        if (plain > 0) {
            out += rest.substr(0, plain);
            step.used += plain;
            step.characters += plain;
            continue;
        }
        piece next = next_piece(rules, rest, at_end);
        if (next.used == 0) return step;
        std::size_t count = count_characters(next.text);
        if (count > wanted.characters - step.characters) { // "\r\n", and only one is wanted
            next = {1, rest.substr(0, 1), false};
            count = 1;
        }
        out += next.text;
        step.used += next.used;
        step.characters += count;
        if (next.ends_line && wanted.line) {
            step.complete = true;
            return step;
        }
    }
    step.complete = at_end || step.characters >= wanted.characters;
    return step;
}

std::string written_text(text_rules const& rules, std::string_view text, std::size_t& characters) {
    std::string result = checked(rules.errors, text);
    characters = count_characters(result);
    if (rules.newline && rules.newline->starts_with('\r'))
        result = with_newlines(result, *rules.newline);
    return result;
}

} // namespace weft::detail
