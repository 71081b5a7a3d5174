#pragma once

#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/detail/thread_call.hpp>

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

/// Blocking code, on threads where it holds nobody up.
namespace weft::to_thread {

/// `abandon_on_cancel`: a cancelled caller leaves at once, and the thread runs on with nobody waiting;
/// without it the caller waits for the end of the call. `limiter`: whose tokens bound the number of
/// calls at once; null: the run's default. It must outlive the calls, the abandoned ones included.
struct options {
    bool abandon_on_cancel = false;
    capacity_limiter* limiter = nullptr;
};

/// The limiter of calls that name none: 40 tokens, one for each run. Errors: no_event_loop_error
/// outside a task. Source: AnyIO to_thread.current_default_thread_limiter
capacity_limiter& current_default_thread_limiter();

/// Runs f(args...) in a thread of the run's pool while this task waits; gives its value, or throws its
/// exception. The function, its arguments and an abandoned call's outcome are destroyed in the thread.
///
/// The function has a copy of this task's context variables. Inside, the thread is no task: blocking-style calls throw no_event_loop_error; from_thread leads
/// back. A call that waits for another call under the same limiter may wait for ever.
///
/// Cancellation  a cancellation point on entry and while it waits for a token: the function did not
///               run. Afterwards the call is finished first, and the cancellation comes with the next
///               cancellation point; with abandon_on_cancel it comes at once, and what the function
///               does is unknown (progress)
/// Errors        what the function throws; std::system_error (no thread); no_event_loop_error
/// Source        AnyIO to_thread.run_sync
template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
auto run_sync(options const& how, F&& f, Args&&... args) {
    using result = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>>;
    using call = detail::typed_thread_call<result, std::decay_t<F>, std::decay_t<Args>...>;
    auto const shared =
        std::make_shared<call>(std::in_place, std::forward<F>(f), std::forward<Args>(args)...);
    shared->abandon_on_cancel = how.abandon_on_cancel;
    detail::run_in_thread(shared, how.limiter);
    return shared->take();
}

template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
auto run_sync(F&& f, Args&&... args) {
    return run_sync(options{}, std::forward<F>(f), std::forward<Args>(args)...);
}

} // namespace weft::to_thread
