#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

namespace weft::detail {

/// A callable with its arguments, decay-copied as std::thread does.
template <class F, class... Args> struct bound_call {
    template <class G, class... Given>
    explicit bound_call(G&& g, Given&&... given)
        : function(std::forward<G>(g)), arguments(std::forward<Given>(given)...) {}

    auto invoke() -> decltype(auto) {
        return std::apply(
            [this](Args&... args) -> decltype(auto) {
                return std::invoke(std::move(function), std::move(args)...);
            },
            arguments);
    }

    F function;
    std::tuple<Args...> arguments;
};

/// A task's value until its handles have taken it: copied out each time, or moved out once.
template <class R> struct task_value {
    R value;
    std::atomic<bool> taken = false;
};

/// The function a task is named after: its callable, or the user's function in it where this is specialised.
template <class F> struct named_function {
    using type = F;
    static F const& of(F const& callable) noexcept { return callable; }
};

template <class F> void const* address_if_function(F const& callable) {
    using type = named_function<F>::type;
    if constexpr (std::is_pointer_v<type> && std::is_function_v<std::remove_pointer_t<type>>)
        return reinterpret_cast<void const*>(named_function<F>::of(callable));
    else
        return nullptr;
}

/// The base of a callable that tells of its task's failure itself: the group does not hear of it. One that cannot
/// be begun is given it by fail(std::exception_ptr) noexcept, before it is destroyed.
struct tells_of_failure {};

/// How a body that stands in a Call is told, or null.
template <class Call> constexpr auto fail_body_of() -> void (*)(void*, std::exception_ptr) noexcept {
    if constexpr (std::is_base_of_v<tells_of_failure, decltype(Call::function)>)
        return [](void* place, std::exception_ptr error) noexcept {
            static_cast<Call*>(place)->function.fail(std::move(error));
        };
    else
        return nullptr;
}

/// The body of a task in the fiber's storage: first the call, then, in the same place, its value.
template <class R, class F, class... Args> struct task_body {
    using call = bound_call<F, Args...>;
    using value = task_value<std::conditional_t<std::is_void_v<R>, int, R>>;
    static constexpr std::size_t size =
        std::is_void_v<R> ? sizeof(call) : std::max(sizeof(call), sizeof(value));
    static constexpr std::size_t alignment =
        std::is_void_v<R> ? alignof(call) : std::max(alignof(call), alignof(value));

    static void run(fiber&, void* place) {
        call* const work = static_cast<call*>(place);
        struct end_of_call {
            call* work;
            ~end_of_call() { work->~call(); }
        };
        if constexpr (std::is_void_v<R>) {
            end_of_call const guard{work};
            work->invoke();
        } else {
            std::optional<R> result;
            {
                end_of_call const guard{work};
                result.emplace(work->invoke());
            }
            new (place) value{*std::move(result)};
        }
    }
    static void destroy_call(void* place) { static_cast<call*>(place)->~call(); }
    static void destroy_value(void* place) { static_cast<value*>(place)->~value(); }

    static constexpr body_operations operations{
        run, destroy_call, std::is_void_v<R> ? nullptr : destroy_value, typeid(typename named_function<F>::type),
        fail_body_of<call>()};
};

/// The body of a child of start(): a call that is handed the user's function and arguments.
template <class Starter, class F, class... Args> struct start_body {
    struct call {
        template <class G, class... Given>
        call(Starter&& starts, G&& g, Given&&... given)
            : starter(std::move(starts)), function(std::forward<G>(g)),
              arguments(std::forward<Given>(given)...) {}
        Starter starter;
        F function;
        std::tuple<Args...> arguments;
    };
    static constexpr std::size_t size = sizeof(call);
    static constexpr std::size_t alignment = alignof(call);

    static void run(fiber&, void* place) {
        std::unique_ptr<call, end_of_call> const work(static_cast<call*>(place));
        std::apply([&](Args&... args) { work->starter(work->function, args...); }, work->arguments);
    }
    struct end_of_call {
        void operator()(call* work) const { work->~call(); }
    };
    static void destroy_call(void* place) { static_cast<call*>(place)->~call(); }
    static constexpr body_operations operations{run, destroy_call, nullptr, typeid(typename named_function<F>::type),
                                                fail_body_of<call>()};
};

/// A body that somebody else owns and that outlives the task: run()'s own frame.
template <class Body, class Named> struct borrowed_body {
    static void run(fiber&, void* body) { (*static_cast<Body*>(body))(); }
    static void keep(void*) {}
    static constexpr body_operations operations{run, keep, nullptr, typeid(Named)};
};

} // namespace weft::detail
