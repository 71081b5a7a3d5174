#pragma once

#include <weft/runtime/detail/idle_word.hpp>

#include <cerrno>
#include <charconv>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <system_error>
#include <type_traits>

/// What the tools' command lines have in common; getopt_long() does the rest.
namespace command_line {

constexpr unsigned most_workers = weft::detail::idle_word<>::max_workers; // of a run

/// Ends the program after getopt_long() has said what is wrong.
[[noreturn]] inline void refuse() {
    std::fprintf(stderr, "%s: --help tells more\n", program_invocation_short_name);
    std::exit(2);
}

/// Says what is wrong, and ends the program.
[[noreturn]] inline void refuse(std::string const& why) {
    std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, why.c_str());
    refuse();
}

/// Answers --help.
[[noreturn]] inline void explain(char const* usage) {
    std::fputs(usage, stdout);
    std::exit(0);
}

/// The value of an option, or of what else is named; refuses what is no number, or none within the bounds.
template <class Number>
Number number(char const* name, char const* text, std::type_identity_t<Number> least,
              std::type_identity_t<Number> most) {
    Number value{};
    char const* const end = text + std::strlen(text);
    auto const [stopped, error] = std::from_chars(text, end, value);
    if (error == std::errc() && stopped == end && value >= least && value <= most) return value; // NaN is not
    std::ostringstream why;
    why << name << " wants a " << (std::integral<Number> ? "whole number" : "number") << " from " << least
        << " to " << most << ", not '" << text << "'";
    refuse(why.str());
}

} // namespace command_line
