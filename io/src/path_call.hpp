#pragma once

#include <weft/io/path.hpp>
#include <weft/runtime/detail/fiber.hpp>
#include <weft/sync/to_thread.hpp>

#include <string>
#include <system_error>
#include <utility>

namespace weft::detail {

/// "cannot <what> '<path>': <the errno's text>"
std::system_error path_error(int error, std::string const& what, path const& where);
[[noreturn]] void throw_path_error(int error, std::string const& what, path const& where);

bool names_something(path const&); ///< no NUL in it
/// For the system. Errors: std::invalid_argument (a NUL in it)
char const* system_name(path const&);

/// What only looks: a cancelled task leaves it to the thread, so it must own all it needs (PH4).
/// `call`: what an error outside of a run names; if not given, the function that calls this one.
template <class Look>
auto look_in_thread(capacity_limiter* limiter, Look look, char const* call = __builtin_FUNCTION()) {
    require_fiber(call);
    return to_thread::run_sync(to_thread::options{.abandon_on_cancel = true, .limiter = limiter},
                               std::move(look));
}

/// What is finished before a cancellation is noticed. The task waits, so it may refer to its
/// variables.
template <class Act>
auto act_in_thread(capacity_limiter* limiter, Act act, char const* call = __builtin_FUNCTION()) {
    require_fiber(call);
    return to_thread::run_sync(to_thread::options{.limiter = limiter}, std::move(act));
}

} // namespace weft::detail
