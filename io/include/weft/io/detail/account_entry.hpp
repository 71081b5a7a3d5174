#pragma once

#include <cerrno>
#include <cstddef>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace weft::detail {

/// What `take` makes of an entry of the user database (getpwnam_r(3) and its like); none: there is no such
/// entry. `what` names it in errors. Blocks: for threads. Errors: std::system_error (it cannot be told)
template <class Entry, class Look, class Take>
auto look_up_account(std::string const& what, Look look, Take take)
    -> std::optional<decltype(take(std::declval<Entry const&>()))> {
    constexpr std::size_t largest_entry = 1 << 20;
    std::vector<char> space(1024);
    for (;;) {
        Entry entry{};
        Entry* found = nullptr;
        int const error = look(&entry, space.data(), space.size(), &found);
        if (found != nullptr) return take(entry);
        if (error == ERANGE && space.size() < largest_entry)
            space.resize(space.size() * 2);
        // All of these say "not found", depending on where it was looked for.
        else if (error == 0 || error == ENOENT || error == ESRCH || error == EBADF || error == EPERM)
            return {};
        else if (error != EINTR)
            throw std::system_error(error, std::system_category(), "cannot look up " + what);
    }
}

} // namespace weft::detail
