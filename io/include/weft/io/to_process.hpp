#pragma once

#include <weft/io/detail/process_call.hpp>
#include <weft/io/detail/transport.hpp>
#include <weft/sync/capacity_limiter.hpp>

#include <concepts>
#include <functional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

/// Functions, in processes where a crash, a leak or a global lock is nobody else's.
namespace weft::to_process {

/// `cancellable`: a cancelled caller kills the worker process and leaves; without it the caller
/// waits for the end of the call. `limiter`: whose tokens bound the number of calls at once; null:
/// the run's default. It must outlive the calls.
struct options {
    bool cancellable = false;
    capacity_limiter* limiter = nullptr;
};

/// The limiter of calls that name none: a token for each CPU, one limiter for each run. Errors:
/// no_event_loop_error outside a task. Source: AnyIO to_process.current_default_process_limiter
capacity_limiter& current_default_process_limiter();

} // namespace weft::to_process

namespace weft::detail {

/// As what an argument travels: text as a string, everything else as it is.
template <class T> struct travelling {
    using decayed = std::decay_t<T>;
    using type =
        std::conditional_t<std::is_same_v<decayed, char const*> || std::is_same_v<decayed, char*> ||
                               std::is_same_v<decayed, std::string_view>,
                           std::string, decayed>;
};
template <class T> using travelling_t = typename travelling<T>::type;

template <class F>
concept function_pointer = std::is_pointer_v<F> && std::is_function_v<std::remove_pointer_t<F>>;
template <class F>
concept captureless = std::is_empty_v<F> && std::is_default_constructible_v<F>;

/// One kind of call: its code on the other side.
template <class F, class R, class... Args> struct process_function {
    static void run(void const* function, frame_reader& in, frame_writer& out) {
        std::tuple<Args...> arguments{receive_value<Args>(in)...}; // in order: braces
        auto const invoke = [&]() -> R {
            if constexpr (function_pointer<F>)
                return std::apply(reinterpret_cast<F>(const_cast<void*>(function)),
                                  std::move(arguments));
            else
                return std::apply(F(), std::move(arguments));
        };
        if constexpr (std::is_void_v<R>)
            invoke();
        else
            send_value(out, invoke());
    }
};

} // namespace weft::detail

namespace weft::to_process {

/// Runs f(args...) in a worker process while this task waits; gives its value, or throws its
/// exception: one of the standard library comes back as itself, any other one as weft::error with
/// its type's name and text.
///
/// f is a function or a lambda without captures. Arguments and result travel: arithmetic types,
/// enumerations, strings, the standard containers, optionals, pairs, tuples, variants, types with
/// cereal's functions, and other trivially copyable types as the octets that they are (pointers in
/// them mean nothing there). A string literal or a string_view arrives as a std::string. Each way
/// no more than 1 GiB.
///
/// A worker process is this program, started again: its global variables are initialised as usual,
/// in place of main() it waits for calls. It is used again and again, the one that was used last
/// first; what a function leaves in global variables stays there. One that is idle for five minutes
/// is ended by the next call, all by the end of the run. Standard input, output and error lead
/// nowhere, and there is no run(): a function may begin one. If this program is killed, a worker
/// ends when its function does.
///
/// Cancellation  a cancellation point on entry and while it waits for a token or a worker process:
///               the function did not run. Afterwards the call is finished first, and the
///               cancellation comes with the next cancellation point; with `cancellable` the
///               process is killed and reaped, and how far the function came is unknown (progress)
/// Errors        what the function throws; broken_worker_process (it ended: by which signal or
///               status; or it did not begin in 20 s); std::length_error (more than 1 GiB);
///               std::system_error (no process can be had); no_event_loop_error
/// Source        AnyIO to_process.run_sync
template <class F, class... Args> auto run_sync(options const& how, F f, Args&&... args) {
    static_assert(
        detail::function_pointer<F> || detail::captureless<F>,
        "only a function or a lambda without captures can run in a worker process: give it "
        "what it needs as arguments");
    static_assert(
        std::invocable<F, detail::travelling_t<Args>...>,
        "the function cannot be called with these arguments (text arrives as std::string)");
    static_assert(
        (detail::transportable<detail::travelling_t<Args>> && ...),
        "an argument cannot travel to a worker process: it is or holds a pointer or a view, "
        "or a type that is neither trivially copyable nor known to cereal; give that type "
        "a serialize() function");
    using result = std::decay_t<std::invoke_result_t<F, detail::travelling_t<Args>...>>;
    if constexpr (!std::is_void_v<result>) {
        static_assert(
            detail::transportable<result>,
            "the result cannot travel back from a worker process: it is or holds a pointer "
            "or a view, or a type that is neither trivially copyable nor known to cereal; "
            "give that type a serialize() function");
        static_assert(detail::received_in_place<result>,
                      "the result cannot travel back from a worker process: it, or an element of it, has no "
                      "default constructor");
    }
    static_assert((detail::received_in_place<detail::travelling_t<Args>> && ...),
                  "an argument cannot travel to a worker process: it, or an element of it, has no default "
                  "constructor");

    void const* function = nullptr;
    if constexpr (detail::function_pointer<F>) function = reinterpret_cast<void const*>(f);
    detail::frame_writer call = detail::begin_process_call(
        &detail::process_function<F, result, detail::travelling_t<Args>...>::run, function);
    (detail::send_value<detail::travelling_t<Args>>(call, std::forward<Args>(args)), ...);
    bytes const answer = detail::finish_process_call(std::move(call), how.cancellable, how.limiter);
    if constexpr (!std::is_void_v<result>) {
        detail::frame_reader in(answer);
        return detail::receive_value<result>(in);
    }
}

template <class F, class... Args>
requires(!std::same_as<std::remove_cvref_t<F>, options>) auto run_sync(F f, Args&&... args) {
    return run_sync(options{}, std::move(f), std::forward<Args>(args)...);
}

} // namespace weft::to_process
