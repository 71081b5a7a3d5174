#pragma once

#include <weft/runtime/this_task.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/sync/detail/thread_call.hpp>

#include <concepts>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {

/// Has the task that waits for this thread run the request, or under abandon_on_cancel a task of its own,
/// and waits until it has. Errors: no_event_loop_error (not in a call of to_thread::run_sync);
/// run_finished_error (the run is over)
void run_in_waiting_task(task_request&, char const* call);

/// A call on the thread's stack, with a place for what it gives.
template <class Call> class typed_task_request final : public task_request {
public:
    using result = std::invoke_result_t<Call&>;

    explicit typed_task_request(Call& call) : call_(call) {}

    void run() noexcept override {
        try {
            if constexpr (std::is_void_v<result>)
                call_();
            else
                value_.emplace(call_());
        } catch (...) { // cancellations too: they go on in the thread
            error_ = std::current_exception();
        }
    }
    void fail(std::exception_ptr error) noexcept override { error_ = std::move(error); }
    result take() {
        if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
        if constexpr (!std::is_void_v<result>) return *std::move(value_);
    }

private:
    Call& call_;
    std::optional<std::conditional_t<std::is_void_v<result>, char, result>> value_;
    std::exception_ptr error_;
};

template <class R, class Call> R call_in_waiting_task(Call call, char const* name) {
    auto const as_value = [&]() -> R { return call(); };
    typed_task_request<decltype(as_value) const> request(as_value);
    run_in_waiting_task(request, name);
    return request.take();
}

} // namespace detail

/// The way back, from a thread of to_thread::run_sync to the task that waits for it.
namespace from_thread {

/// Runs f(args...) in the waiting task, under its cancel scopes and with a copy of the context variables of
/// the thread, and waits for the end; gives its value, or throws its exception. The function may wait.
/// Cancellation of the task ends it, and comes out here as `cancelled`: let it pass.
///
/// Under abandon_on_cancel it runs in a task of its own, which the cancellation of the waiting one does not
/// reach: that leaves, and the function goes on. Only the end of the run's first task cancels it.
///
/// "In the task" excludes nothing: other tasks run at the same time on other workers.
///
/// Errors  what f throws; no_event_loop_error (not in a call of to_thread::run_sync, or in a task of a
///         run that the call has begun); run_finished_error (the call was abandoned and the run is over)
/// Source  AnyIO from_thread.run
template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
auto run(F&& f, Args&&... args) {
    using result = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>>;
    detail::bound_call<std::decay_t<F>, std::decay_t<Args>...> call(std::forward<F>(f),
                                                                    std::forward<Args>(args)...);
    return detail::call_in_waiting_task<result>([&]() -> result { return call.invoke(); },
                                                "from_thread.run");
}

/// The same for a function that does not wait: one that does ends the process. Cancellation does not
/// reach it. Source: AnyIO from_thread.run_sync
template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
auto run_sync(F&& f, Args&&... args) {
    using result = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>>;
    detail::bound_call<std::decay_t<F>, std::decay_t<Args>...> call(std::forward<F>(f),
                                                                    std::forward<Args>(args)...);
    return detail::call_in_waiting_task<result>(
        [&]() -> result {
            return shielded([&]() -> result {
                no_suspend const guard;
                return call.invoke();
            });
        },
        "from_thread.run_sync");
}

/// Throws `cancelled` if the task that made this call is cancelled, or has left it for that reason: from the
/// moment at which that was done, whether the task has run since or not.
///
/// Errors  no_event_loop_error (as run())
/// Source  AnyIO from_thread.check_cancelled
void check_cancelled();

} // namespace from_thread
} // namespace weft
