#pragma once

#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/runtime/time.hpp>

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>

namespace weft::detail {

class runtime;

/// What promise and futures share, but for the value.
///
/// States: pending -> setting (who won begin_setting(); writes the outcome) -> value or failed; or
/// pending -> cancelling (who called cancel(); tells the other side) -> cancelled. One CAS decides
/// (B14). Fibers wait in the queue, OS threads at a futex. Callbacks run in the thread
/// that completes it, without any lock (B17).
class future_state {
public:
    enum class state : unsigned char { pending, setting, cancelling, value, failed, cancelled };

    struct callback {
        virtual ~callback() = default;
        virtual void operator()() noexcept = 0;
        std::unique_ptr<callback> next;
    };

    future_state() = default;
    virtual ~future_state() = default;
    future_state(future_state const&) = delete;
    future_state& operator=(future_state const&) = delete;

    /// True: the caller writes the outcome and then calls finish().
    bool begin_setting() noexcept { return begin(state::setting); }
    /// The same, else std::logic_error, or future_cancelled if it was cancelled.
    void begin_setting_or_throw();
    void finish(state) noexcept;
    void fail(std::exception_ptr) noexcept; ///< after begin_setting()

    /// Tasks of that run complete it: for those of another one, which wait for something outside. Said before
    /// anybody waits.
    void is_completed_in(runtime const* run) noexcept { completed_in_ = run; }

    bool cancel(); ///< false: it is done, or about to be

    state now() const noexcept { return now_.load(std::memory_order_acquire); } // finish()
    bool is_done() const noexcept { return now() > state::cancelling; }
    void add_callback(std::unique_ptr<callback>); ///< runs it at once if it is done

    /// Waits; then throws unless there is a value.
    void wait_for_value(char const* call);
    bool wait_until_done(duration at_most, char const* call);

protected:
    virtual void on_cancel() {} ///< by cancel(), before anybody is woken

private:
    bool wait_in_fiber(time_point deadline, char const* call);
    bool wait_in_thread(duration at_most);

    bool begin(state next) noexcept; // out of pending

    std::atomic<state> now_ = state::pending;
    wait_queue fibers_;
    std::unique_ptr<callback> callbacks_; // under fibers_
    std::exception_ptr error_;            // by who sets
    runtime const* completed_in_ = nullptr; // null: whoever it is
    std::atomic<std::uint32_t> threads_ = 0; // a futex: see wait_in_thread()
};

template <class T> class typed_future_state : public future_state {
public:
    using stored = std::conditional_t<std::is_void_v<T>, char, T>;
    std::optional<stored> value;     // by who sets, or is about to
    std::atomic<bool> taken = false; // move-only values go once
};

} // namespace weft::detail
