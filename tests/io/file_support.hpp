#pragma once

#include <string>
#include <system_error>

/// What the call threw as a std::system_error, as a portable number; 0 where it threw none.
template <class Call> std::errc error_of(Call call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return std::errc(failure.code().value());
    }
    return {};
}

/// Numbered, with a character beyond ASCII in each.
inline std::string many_lines(int count) {
    std::string text;
    for (int i = 0; i < count; ++i)
        text += "line " + std::to_string(i) + " \xc3\xa4\n";
    return text;
}
