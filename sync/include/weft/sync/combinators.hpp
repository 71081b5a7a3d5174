#pragma once

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/swallowed.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/semaphore.hpp>

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <iterator>
#include <mutex>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace weft {

namespace detail {

template <class F> using plain_result = std::decay_t<std::invoke_result_t<std::decay_t<F>>>;

/// What a callable gives, where nothing must be something.
template <class R>
using something = std::conditional_t<std::is_void_v<R>, std::monostate, std::decay_t<R>>;
template <class F> using gathered = something<plain_result<F>>;

template <class Call> auto invoke_for_something(Call&& call) {
    if constexpr (std::is_void_v<decltype(std::forward<Call>(call)())>) {
        std::forward<Call>(call)();
        return std::monostate();
    } else {
        return std::forward<Call>(call)();
    }
}

/// How an element of a range goes to a task: by reference if it stays in the range, else by value.
template <class Range> class element {
public:
    using reference = std::ranges::range_reference_t<Range>;
    static constexpr bool stays =
        std::ranges::forward_range<Range> && std::is_lvalue_reference_v<reference>;

    explicit element(reference&& from) : value_(std::forward<reference>(from)) {}
    reference&& get() { return static_cast<reference&&>(value_); }

private:
    std::conditional_t<stays, reference, std::remove_cvref_t<reference>> value_;
};

/// A task group that returns when everything in it has been done. A task that lets a cancellation of its
/// own escape cancels the rest like one that fails, but is no error of the group's (G13).
template <class Body> void run_to_the_end(char const* call, Body&& body) {
    enter_blocking_call(call);
    task_group group;
    group.run(body);
    if (group.cancel_scope().cancel_called())
        throw_cut_short(("a task of " + std::string(call) + "() was cancelled").c_str());
}

/// Starts a task for each element, no more than `limit` at a time. make_call(element) gives its body.
template <class Range, class MakeCall>
void run_limited(char const* call, Range&& range, std::size_t limit, MakeCall make_call) {
    if (limit == 0) throw std::invalid_argument("a limit of 0 lets nothing run");
    semaphore permits(std::min(limit, std::size_t(-1) / 4));
    run_to_the_end(call, [&](task_group& group) {
        for (auto&& each : range) {
            permits.acquire();
            struct permit {
                semaphore* of;
                explicit permit(semaphore& from) : of(&from) {}
                permit(permit&& other) noexcept : of(std::exchange(other.of, nullptr)) {}
                permit& operator=(permit&&) = delete;
                ~permit() {
                    if (of != nullptr) of->release();
                }
            } held(permits);
            group.start_soon([held = std::move(held),
                              element = element<Range>(std::forward<decltype(each)>(each)),
                              call = make_call()]() mutable { call(element.get()); });
        }
    });
}

template <class... R, std::size_t... Index>
std::tuple<R...> take_all(std::tuple<std::optional<R>...>& slots, std::index_sequence<Index...>) {
    return std::tuple<R...>(*std::move(std::get<Index>(slots))...);
}

/// The outcome of a race: the first to come decides.
template <class... F> class race_outcome {
public:
    using value = std::variant<gathered<F>...>;

    template <std::size_t Index, class Call> void run(task_group& racers, Call& call) {
        bool decides = false;
        try {
            auto result = invoke_for_something(std::move(call));
            decides = decide(racers);
            if (decides) winner_.emplace(std::in_place_index<Index>, std::move(result));
        } catch (cancelled const&) {
            throw;
        } catch (...) { // what losers throw is dropped. A failed move is the winner's failure
            bool const was_cancelled = !decides && is_cancelled(*current_fiber()); // the race, or by the winner
            if (decides || decide(racers)) {
                error_ = std::current_exception();
                error_yields_ = was_cancelled;
            } else {
                note_cancellation_handled(*current_fiber()); // its own may have led to this
            }
        }
    }
    /// At the group's end: it counts more than a cancellation, which led to an error, or came after it.
    bool has_come() const { return winner_ || (error_ != nullptr && !error_yields_); }
    value take() {
        if (error_ != nullptr) std::rethrow_exception(error_);
        if (!winner_) throw_cut_short("the callables of race() were cancelled");
        return *std::move(winner_);
    }

private:
    bool decide(task_group& racers) {
        if (decided_.exchange(true, std::memory_order_relaxed)) return false; // the group's end publishes
        cancel_because(racers.cancel_scope(), "the race is decided");
        return true;
    }

    std::atomic<bool> decided_ = false;
    std::optional<value> winner_;
    std::exception_ptr error_;
    bool error_yields_ = false; // it came of a cancellation from outside
};

/// The order in which tasks have ended. Room for all is made first: announcing does not allocate.
class completion_order {
public:
    explicit completion_order(std::size_t tasks) { finished_.reserve(tasks); }

    void announce(std::size_t task) {
        {
            std::lock_guard const guard(lock_);
            finished_.push_back(task);
        }
        arrivals_.release();
    }
    std::size_t next() { // waits
        arrivals_.acquire();
        std::lock_guard const guard(lock_);
        return finished_[taken_++];
    }

private:
    semaphore arrivals_{0};
    std::mutex lock_; // never across a wait
    std::vector<std::size_t> finished_;
    std::size_t taken_ = 0;
};

} // namespace detail

/// Runs the callables side by side and gives their results in order of the arguments; nothing becomes
/// std::monostate.
///
/// Cancellation  a cancellation point; the callables are cancelled and joined
/// Errors        exception_group with what the callables threw, after the others were cancelled and
///               joined; task_cancelled (one let a cancellation of its own escape)
/// Source        AnyIO gather
template <class... F>
    requires(std::invocable<std::decay_t<F>> && ...)
auto gather(F&&... f) -> std::tuple<detail::gathered<F>...> {
    std::tuple<std::optional<detail::gathered<F>>...> slots;
    std::apply(
        [&](auto&... slot) {
            detail::run_to_the_end("gather", [&](task_group& group) {
                (group.start_soon([&slot, call = std::decay_t<F>(std::forward<F>(f))]() mutable {
                    slot.emplace(detail::invoke_for_something(std::move(call)));
                }),
                 ...);
            });
        },
        slots);
    return detail::take_all(slots, std::index_sequence_for<F...>());
}

/// Runs the callables side by side; the first to finish decides, with its value or its error. The rest
/// are cancelled and joined, and what they throw is dropped.
///
/// Cancellation  a cancellation point; the callables are cancelled and joined. A value that has come, or an
///               error that came first, is given all the same; the cancellation comes at the next call
/// Errors        what the first threw; task_cancelled (one let a cancellation of its own escape before
///               any had finished)
/// Source        Trio's idiom of a nursery that is cancelled by the first result
template <class... F>
    requires(sizeof...(F) > 0 && (std::invocable<std::decay_t<F>> && ...))
auto race(F&&... f) -> std::variant<detail::gathered<F>...> {
    detail::enter_blocking_call("race");
    detail::race_outcome<F...> outcome;
    try {
        [&]<std::size_t... Index>(std::index_sequence<Index...>) {
            with_task_group([&](task_group& group) {
                (group.start_soon(
                     [&outcome, &group, call = std::decay_t<F>(std::forward<F>(f))]() mutable {
                         outcome.template run<Index>(group, call);
                     }),
                 ...);
            });
        }(std::index_sequence_for<F...>());
    } catch (cancelled const&) { // if it came too late, the next call sees it (M3)
        if (!outcome.has_come()) throw;
        detail::note_cancellation_handled(*detail::current_fiber());
    }
    return outcome.take();
}

/// f of each element, `limit` at a time; the results in order of the elements. The callable is shared by
/// the tasks that run at once.
///
/// Cancellation  a cancellation point; the calls under way are cancelled and joined
/// Errors        exception_group with what f threw; std::invalid_argument (a limit of 0);
///               task_cancelled (a call let a cancellation of its own escape)
/// Source        AnyIO amap
template <std::ranges::input_range Range, class F>
    requires std::invocable<F&, std::ranges::range_reference_t<Range>>
auto map_concurrent(Range&& range, std::size_t limit, F&& f) {
    using result = std::decay_t<std::invoke_result_t<F&, std::ranges::range_reference_t<Range>>>;
    static_assert(!std::is_void_v<result>, "for_each_concurrent() is for callables without result");
    std::deque<std::optional<result>> slots; // its elements stay where they are
    detail::run_limited("map_concurrent", range, limit, [&] {
        return [&f, &slot = slots.emplace_back()]<class Element>(Element&& each) {
            slot.emplace(std::invoke(f, std::forward<Element>(each)));
        };
    });
    std::vector<result> results;
    results.reserve(slots.size());
    for (std::optional<result>& slot : slots)
        results.push_back(*std::move(slot));
    return results;
}

/// f of each element, `limit` at a time. As map_concurrent(), without results.
template <std::ranges::input_range Range, class F>
    requires std::invocable<F&, std::ranges::range_reference_t<Range>>
void for_each_concurrent(Range&& range, std::size_t limit, F&& f) {
    detail::run_limited("for_each_concurrent", range, limit, [&f] {
        return [&f]<class Element>(Element&& each) {
            std::invoke(f, std::forward<Element>(each));
        };
    });
}

/// Runs the callables side by side and calls sink(task_handle<R>) here, for each as it ends. A callable
/// that fails cancels the rest, as does a sink that throws. Callables that only move are taken out of a
/// range that is given away. Of an empty range none ends, and it returns at once.
///
/// Cancellation  a cancellation point; the callables are cancelled and joined
/// Errors        exception_group with what the callables or the sink threw; task_cancelled (a callable
///               or the sink let a cancellation of its own escape)
/// Source        AnyIO as_completed
template <std::ranges::input_range Range, class Sink>
    requires std::invocable<std::ranges::range_value_t<Range>>
void as_completed(Range&& callables, Sink&& sink) {
    using callable = std::ranges::range_value_t<Range>;
    using result = detail::plain_result<callable>;
    using reference = std::ranges::range_reference_t<Range>;
    constexpr bool is_given_away =
        !std::is_lvalue_reference_v<Range> && !std::ranges::view<std::remove_cvref_t<Range>>;
    constexpr bool moves = is_given_away && !std::constructible_from<callable, reference>;
    std::vector<callable> calls;
    for (auto&& each : callables)
        if constexpr (moves)
            calls.emplace_back(std::move(each));
        else
            calls.emplace_back(std::forward<decltype(each)>(each));
    detail::completion_order order(calls.size());
    std::vector<task_handle<result>> handles;
    handles.reserve(calls.size());
    detail::run_to_the_end("as_completed", [&](task_group& group) {
        for (std::size_t task = 0; task < calls.size(); ++task)
            handles.push_back(group.create_task([&order, task, call = std::move(calls[task])]() mutable {
                struct announcement {
                    detail::completion_order& order;
                    std::size_t task;
                    ~announcement() { order.announce(task); }
                } const at_the_end{order, task};
                return std::invoke(std::move(call));
            }));
        for (std::size_t count = 0; count < calls.size(); ++count) {
            task_handle<result> const& ended = handles[order.next()];
            detail::handle_access::wait_until_ended(ended); // its captures go after the announcement
            std::invoke(sink, ended);
        }
    });
}

} // namespace weft
