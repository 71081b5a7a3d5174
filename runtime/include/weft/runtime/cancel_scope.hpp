#pragma once

#include <weft/runtime/error.hpp>
#include <weft/runtime/time.hpp>

#include <atomic>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace weft {

class cancel_scope;

namespace detail {

struct fiber;
struct scope_access;
struct timed_scope;
struct cancel_cause; // what cancelled a scope: the given reason, and a text for people

/// What a body gives when it may take what opened it, or nothing.
template <class Body, class Opener> struct body_call {
    static constexpr bool takes_opener = std::invocable<Body, Opener&>;
    static auto call(Body& body, Opener& opener) -> decltype(auto) {
        if constexpr (takes_opener)
            return std::invoke(std::forward<Body>(body), opener);
        else
            return std::invoke(std::forward<Body>(body));
    }
    using result = std::decay_t<decltype(call(std::declval<Body&>(), std::declval<Opener&>()))>;
};
template <class Body, class Opener> using body_result = typename body_call<Body, Opener>::result;
template <class Body, class Opener>
concept body_of = std::invocable<Body, Opener&> || std::invocable<Body>;

/// The public call that opens a scope, for the error where there is no task.
enum class scope_opener : std::uint32_t {
    cancel_scope,
    move_on_at,
    move_on_after,
    fail_at,
    fail_after,
    shielded,
    task_group,
    with_task_group
};

[[noreturn]] void throw_timeout(duration);
[[noreturn]] void throw_timeout(time_point);
[[noreturn]] void throw_cut_short(char const* what);

/// cancel(), where nothing may stop it: without memory for the reason it is left out.
void cancel_because(cancel_scope&, char const* reason) noexcept;

} // namespace detail

/// What a cancelled call throws. Not a std::exception: ordinary handlers let it pass, and so should
/// `catch (...)`. Swallowing it does not help: the next cancellation point throws again (C7).
class cancelled final {
public:
    /// Why, by whom, which scope: for people. Valid while the object lives.
    char const* reason() const noexcept { return reason_ ? reason_->c_str() : "cancelled"; }

private:
    friend struct detail::scope_access;
    explicit cancelled(std::shared_ptr<std::string const> reason) : reason_(std::move(reason)) {}
    std::shared_ptr<std::string const> reason_;
};

struct cancel_scope_options {
    time_point deadline = time_point::max();
    bool shield = false;
};

/// A stretch of work that can be cut short: by cancel(), by its deadline, or by a scope around it.
///
/// Cancellation is level-triggered: once the scope is cancelled, every cancellation point in it throws
/// `cancelled` until the scope is left, also in handlers and destructors; there, while an exception is
/// in flight, only scopes entered since then can throw. It reaches all tasks of groups opened inside.
/// A shield keeps out the cancellation of scopes around, not the scope's own.
///
/// Not copied, not moved, entered once. It must outlive those who call its members.
///
/// Threads       run() by one task; every other member by any thread, at any time
/// Cancellation  run() waits for nothing itself, neither entering nor leaving
/// Errors        std::logic_error (entered twice); no_event_loop_error (run() outside a task)
/// Source        AnyIO CancelScope
class cancel_scope {
public:
    cancel_scope() noexcept = default;
    explicit cancel_scope(cancel_scope_options options) noexcept
        : flags_(options.shield ? shielding | once_shielded : 0),
          deadline_(options.deadline.time_since_epoch().count()) {}
    ~cancel_scope();
    cancel_scope(cancel_scope const&) = delete;
    cancel_scope& operator=(cancel_scope const&) = delete;

    /// Runs the body in this scope. Empty, or false for a void body, if this scope's own cancellation
    /// cut it short; every other exception passes. Of an exception_group the `cancelled` leaves go.
    template <detail::body_of<cancel_scope> Body> auto run(Body&& body) {
        using call = detail::body_call<Body, cancel_scope>;
        using result = detail::body_result<Body, cancel_scope>;
        std::conditional_t<std::is_void_v<result>, bool, std::optional<result>> outcome{};
        enter();
        try {
            if constexpr (std::is_void_v<result>) {
                call::call(body, *this);
                outcome = true;
            } else {
                outcome.emplace(call::call(body, *this));
            }
            leave();
        } catch (cancelled const&) {
            if (!leave_cancelled()) throw;
        } catch (exception_group const& group) {
            if (!leave_failed(group)) throw;
        } catch (...) {
            leave();
            throw;
        }
        return outcome; // not inside: what its move throws must not leave the scope again
    }

    /// Cancels what runs in the scope, or will; the first reason sticks. Returns when every task that
    /// waits in the scope has been woken; never waits and never throws `cancelled` itself.
    void cancel(std::string reason = {});

    bool cancel_called() const noexcept;   ///< also true once the deadline has passed (C23)
    bool cancelled_caught() const noexcept; ///< the scope ended its own cancellation
    std::string cancel_reason() const;
    time_point deadline() const noexcept;
    /// One that has passed cancels at once, if entered; so does moving one that had passed: it comes too late.
    /// Errors: bad_alloc (the one before stays).
    void set_deadline(time_point);
    bool shield() const noexcept;
    void set_shield(bool);                 ///< lifted: an outer cancellation arrives at once

private:
    friend struct detail::scope_access;
    friend struct detail::timed_scope;

    cancel_scope(time_point deadline, std::uint32_t flags, detail::scope_opener by) noexcept
        : flags_(flags | std::uint32_t(by) << opener_place), deadline_(deadline.time_since_epoch().count()) {}

    // flags_
    static constexpr std::uint32_t called = 1;         // cancelled; the reason can be read
    static constexpr std::uint32_t shielding = 2;
    static constexpr std::uint32_t once_shielded = 4;  // leaving it may uncover a cancellation
    static constexpr std::uint32_t calling = 8;        // somebody decided the cause, see `called`
    static constexpr std::uint32_t by_deadline = 16;   // the cause was the deadline
    static constexpr std::uint32_t caught = 32;
    static constexpr std::uint32_t entered = 64;
    static constexpr std::uint32_t provisional = 128;  // `outer_` may still change: start()
    static constexpr std::uint32_t armed = 256;        // this and outer own scopes need no timer more
    static constexpr std::uint32_t timed = 512;        // has been in a timer heap
    static constexpr std::uint32_t in_future = 2048;   // the deadline was just computed, and is ahead
    static constexpr std::uint32_t of_start = 4096;    // the base of a child of start()
    static constexpr std::uint32_t delivered = 8192;   // all were told that it is cancelled
    static constexpr unsigned opener_place = 16;       // the bits from here on: a detail::scope_opener

    void enter();
    void leave() noexcept;                             // normally, or with another exception
    bool leave_cancelled() noexcept;                   // true: swallow
    bool leave_failed(exception_group const& group);   // true: swallow; may throw what is left

    std::atomic<std::uint32_t> flags_ = 0;
    std::uint16_t unwinding_ = 0;                      // uncaught exceptions at entry
    std::uint16_t timer_heap_ = 0;                     // under that heap's lock
    std::uint32_t timer_slot_ = 0;                     //  "
    std::atomic<std::uint32_t> firing_ = 0;            // timers that are being delivered to this scope
    std::atomic<detail::fiber*> owner_ = nullptr;      // while entered; changes under its lock
    cancel_scope* outer_ = nullptr;                    // set before `owner_`
    std::atomic<duration::rep> deadline_ = time_point::max().time_since_epoch().count();
    std::shared_ptr<detail::cancel_cause const> cause_; // set before `called`
};

namespace detail {

/// A scope of which is known who opens it. With a relative deadline the clock is read once, and not again on
/// entry.
struct timed_scope {
    static cancel_scope after(duration delay, bool shield, scope_opener) noexcept;
    static cancel_scope at(time_point deadline, bool shield, scope_opener by) noexcept {
        return cancel_scope(deadline, shield ? cancel_scope::shielding | cancel_scope::once_shielded : 0, by);
    }
    static bool timed_out(cancel_scope const&) noexcept;
};

template <class Limit, class Body>
auto run_or_time_out(cancel_scope& scope, Limit limit, Body&& body)
    -> body_result<Body, cancel_scope> {
    auto outcome = scope.run(std::forward<Body>(body));
    if (!outcome) {
        if (timed_scope::timed_out(scope)) throw_timeout(limit);
        if constexpr (!std::is_void_v<body_result<Body, cancel_scope>>)
            throw_cut_short("the body of fail_after() or fail_at() was cancelled");
    }
    if constexpr (!std::is_void_v<body_result<Body, cancel_scope>>) return *std::move(outcome);
}

} // namespace detail

/// cancel_scope::run with a deadline. Source: AnyIO move_on_after
template <detail::body_of<cancel_scope> Body>
auto move_on_at(time_point deadline, bool shield, Body&& body) {
    cancel_scope scope(detail::timed_scope::at(deadline, shield, detail::scope_opener::move_on_at));
    return scope.run(std::forward<Body>(body));
}
template <detail::body_of<cancel_scope> Body> auto move_on_at(time_point deadline, Body&& body) {
    return move_on_at(deadline, false, std::forward<Body>(body));
}
template <detail::body_of<cancel_scope> Body>
auto move_on_after(duration delay, bool shield, Body&& body) {
    cancel_scope scope(detail::timed_scope::after(delay, shield, detail::scope_opener::move_on_after));
    return scope.run(std::forward<Body>(body));
}
template <detail::body_of<cancel_scope> Body> auto move_on_after(duration delay, Body&& body) {
    return move_on_after(delay, false, std::forward<Body>(body));
}

/// Runs the body; throws timeout_error if this scope's own deadline cut it short. Source: AnyIO
/// fail_after
template <detail::body_of<cancel_scope> Body>
auto fail_at(time_point deadline, bool shield, Body&& body) {
    cancel_scope scope(detail::timed_scope::at(deadline, shield, detail::scope_opener::fail_at));
    return detail::run_or_time_out(scope, deadline, std::forward<Body>(body));
}
template <detail::body_of<cancel_scope> Body> auto fail_at(time_point deadline, Body&& body) {
    return fail_at(deadline, false, std::forward<Body>(body));
}
template <detail::body_of<cancel_scope> Body>
auto fail_after(duration delay, bool shield, Body&& body) {
    cancel_scope scope(detail::timed_scope::after(delay, shield, detail::scope_opener::fail_after));
    return detail::run_or_time_out(scope, delay, std::forward<Body>(body));
}
template <detail::body_of<cancel_scope> Body> auto fail_after(duration delay, Body&& body) {
    return fail_after(delay, false, std::forward<Body>(body));
}

/// Runs the body where the cancellation of scopes around cannot reach it.
template <detail::body_of<cancel_scope> Body>
auto shielded(Body&& body) -> detail::body_result<Body, cancel_scope> {
    cancel_scope scope(detail::timed_scope::at(time_point::max(), true, detail::scope_opener::shielded));
    auto outcome = scope.run(std::forward<Body>(body));
    if constexpr (!std::is_void_v<detail::body_result<Body, cancel_scope>>) {
        if (!outcome) detail::throw_cut_short("the body of shielded() was cancelled");
        return *std::move(outcome);
    }
}

/// The nearest deadline that can cut the calling task short: time_point::max() for none,
/// time_point::min() if it is cancelled already. Outside a task none. Source: AnyIO
/// current_effective_deadline
time_point current_effective_deadline();

} // namespace weft
