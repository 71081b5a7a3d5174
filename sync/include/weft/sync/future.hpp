#pragma once

#include <weft/sync/detail/future_state.hpp>
#include <weft/sync/error.hpp>

#include <atomic>
#include <concepts>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace weft {

template <class T> class promise;
class blocking_portal;

/// One value that will be there some time. Copies name the same value, also of one that is given away:
/// there is no future without a value to come.
///
/// get() gives a copy of the value each time, or, for a move-only type, the value itself once. cancel()
/// says that nobody needs it any more: the future is then done, and the promise cannot be kept. A
/// callback runs wherever the future is completed, at once if it is: it must neither throw nor wait.
///
/// Threads       any thread. get() and wait_for() suspend a task and block an OS thread; a task's future
///               that is to be completed by a task must not be waited for in its worker's own code
/// Cancellation  get() and wait_for() are cancellation points in a task; they leave nothing behind
/// Errors        get(): what the promise was given; future_cancelled; std::logic_error (a move-only
///               value was taken before)
/// Source        AnyIO Future
template <class T> class future {
public:
    future(future const&) = default; // moving copies
    future& operator=(future const&) = default;

    T get() const {
        state_->wait_for_value("future.get");
        if constexpr (std::is_void_v<T>) {
            return;
        } else if constexpr (std::copy_constructible<T>) {
            return *state_->value;
        } else {
            if (state_->taken.exchange(true, std::memory_order_relaxed)) // decides nothing else
                throw std::logic_error("the future's value was taken before");
            return *std::move(state_->value);
        }
    }
    /// True: it is done. Waits no longer than that; duration::max() is for ever.
    bool wait_for(duration at_most) const {
        return state_->wait_until_done(at_most, "future.wait_for");
    }
    bool done() const noexcept { return state_->is_done(); }
    bool cancel() const { ///< false: it was done before
        auto const keep = state_; // whoever is woken may destroy the future
        return keep->cancel();
    }
    bool cancelled() const noexcept {
        return state_->now() == detail::future_state::state::cancelled;
    }
    template <class F>
        requires std::invocable<std::decay_t<F>, future>
    void on_done(F&& f) const {
        struct call final : detail::future_state::callback {
            call(F&& function, future const& done) : f(std::forward<F>(function)), of(done) {}
            void operator()() noexcept override { std::invoke(std::move(f), std::move(of)); }
            std::decay_t<F> f;
            future of;
        };
        state_->add_callback(std::make_unique<call>(std::forward<F>(f), *this));
    }

private:
    friend class promise<T>;
    friend class blocking_portal;
    explicit future(std::shared_ptr<detail::typed_future_state<T>> of) : state_(std::move(of)) {}
    std::shared_ptr<detail::typed_future_state<T>> state_;
};

namespace detail {

/// A promise but for set_value().
template <class T> class promise_base {
public:
    promise_base() : state_(std::make_shared<typed_future_state<T>>()) {}
    promise_base(promise_base&&) noexcept = default;
    promise_base& operator=(promise_base other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~promise_base() {
        if (state_ != nullptr && state_->begin_setting())
            state_->finish(future_state::state::cancelled);
    }

    void set_exception(std::exception_ptr error) {
        auto const keep = state();
        if (error == nullptr) throw std::invalid_argument("a promise was given no exception");
        keep->begin_setting_or_throw();
        keep->fail(std::move(error));
    }

protected:
    std::shared_ptr<typed_future_state<T>> const& state() const {
        if (state_ == nullptr) throw std::logic_error("this promise was moved from");
        return state_;
    }

private:
    std::shared_ptr<typed_future_state<T>> state_;
};

} // namespace detail

/// The writing end of a future: a value or an exception, once. Destroyed without, it cancels the future.
///
/// Threads  any thread
/// Errors   std::logic_error (set before, moved from); future_cancelled (the future was cancelled);
///          std::invalid_argument (a null exception)
/// Source   AnyIO Future
template <class T> class promise : public detail::promise_base<T> {
public:
    void set_value(T value) {
        auto const keep = this->state(); // whoever sees the value may destroy the promise
        keep->begin_setting_or_throw();
        try {
            keep->value.emplace(std::move(value));
        } catch (...) { // the move failed: then that is what became of it
            keep->fail(std::current_exception());
            return;
        }
        keep->finish(detail::future_state::state::value);
    }
    future<T> get_future() const { return future<T>(this->state()); }
};

template <> class promise<void> : public detail::promise_base<void> {
public:
    void set_value() {
        auto const keep = state();
        keep->begin_setting_or_throw();
        keep->finish(detail::future_state::state::value);
    }
    future<void> get_future() const { return future<void>(state()); }
};

} // namespace weft
