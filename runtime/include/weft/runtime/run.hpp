#pragma once

// Without it the compiler may keep errno's address or pthread_self() across a call that suspends.
#ifndef __const__
#warning "compile with -D__const__=__unused__: pkg-config --cflags weft, or Meson's dependency('weft'), passes it"
#endif

#include <weft/runtime/detail/task_body.hpp>
#include <weft/runtime/time.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

/// How a run is set up. Source: AnyIO run(backend, backend_options)
struct run_options {
    std::string backend = "epoll";       ///< one of all_backends()
    unsigned workers = 0;                ///< 0: the CPUs this process may use; "sim": 1
    std::size_t stack_size = 256 * 1024; ///< bytes of stack for each fiber, guard included
    std::uint64_t seed = 0;              ///< "sim": the schedule; 0 with one worker: strictly FIFO
    duration stall_threshold{};          ///< > 0: report fibers that keep a worker longer, each
                                           ///< with the stack it runs on; not under "sim"
};

/// The names that run_options::backend takes. Source: AnyIO get_all_backends
std::vector<std::string> all_backends();

namespace detail {
/// Starts a runtime, runs the body in its first task and returns when every task has ended.
/// `function`: its address for the task's name, if it is one.
void run_first_task(run_options const&, body_operations const&, void* body, void const* function,
                    void const* call_site);

template <class R> struct first_task_result {
    std::optional<R> value;
    template <class Call> void fill(Call&& call) { value.emplace(std::forward<Call>(call)()); }
    R take() { return *std::move(value); }
};
template <> struct first_task_result<void> {
    template <class Call> void fill(Call&& call) { std::forward<Call>(call)(); }
    void take() {}
};
} // namespace detail

/// Runs f(args...) as the first task of a new runtime on `options.workers` threads, this one included,
/// and gives back what it returns or throws. When it returns, every task of the run has ended and its
/// threads are joined. Beside the workers a thread watches over those that are kept busy; with one worker it starts
/// when there is a first deadline, or much memory to give back.
///
/// Errors  std::invalid_argument (unknown backend, too many workers, a stack below the minimum);
///         std::logic_error (inside a run of the same thread); std::system_error (no threads, no fds; no
///         memory or stack for the workers or the first task: ENOMEM); std::bad_alloc (and none to say so)
/// Source  AnyIO run
template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
auto run(run_options const& options, F&& f, Args&&... args) {
    using result = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>>;
    detail::first_task_result<result> slot;
    detail::bound_call<std::decay_t<F>, std::decay_t<Args>...> call(std::forward<F>(f),
                                                                    std::forward<Args>(args)...);
    auto body = [&slot, &call] { slot.fill([&call]() -> decltype(auto) { return call.invoke(); }); };
    detail::run_first_task(options, detail::borrowed_body<decltype(body), std::decay_t<F>>::operations,
                           &body, detail::address_if_function(call.function),
                           __builtin_return_address(0));
    return slot.take();
}

template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
auto run(F&& f, Args&&... args) {
    return run(run_options{}, std::forward<F>(f), std::forward<Args>(args)...);
}

} // namespace weft
