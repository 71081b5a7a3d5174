#pragma once

#include "support/run_test.hpp"

#include <weft/io/path.hpp>

#include <set>
#include <string>
#include <system_error>

/// What tests of paths share.
namespace weft::test {

/// Of a range of paths, each of which comes once.
template <class Range> std::set<std::string> names(Range range) {
    std::set<std::string> found;
    for (path const& each : range)
        check(found.insert(each.as_posix()).second, "each path comes once");
    return found;
}

/// The errno that a call throws; 0: none.
template <class Call> int error_of(Call call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return failure.code().value();
    }
    return 0;
}

} // namespace weft::test
