#pragma once

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/mutex_wait.hpp>
#include <weft/runtime/detail/outside_work.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/swallowed.hpp>
#include <weft/runtime/detail/task_body.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/future.hpp>

#include <concepts>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

namespace weft {

namespace from_thread {
class portal_handle;
}

namespace detail {

/// The future of a portal's task: cancelling it cancels the task.
template <class R> class portal_task final : public typed_future_state<R> {
public:
    explicit portal_task(runtime const* of) noexcept { this->is_completed_in(of); }
    ~portal_task() override = default;

    /// The task's work. Nothing of what the function throws leaves, but for the cancellation of a scope
    /// around: another one would end the portal with it (G13).
    template <class Call> void run(Call&& call) {
        has_begun_ = true;
        cancel_scope own;
        own.run([&] {
            attached const in_reach(*this, own);
            if (this->is_done()) return; // cancelled before it began
            try {
                perform(call);
            } catch (cancelled const&) {
                if (is_cancelled(*current_fiber())) throw;
                note_cancellation_handled(*current_fiber());
            } catch (...) { // goes to the future
                failure_ = std::current_exception();
            }
        });
    }
    void cannot_begin(std::exception_ptr why) noexcept { failure_ = std::move(why); }

    /// The future is done. By the task, of which nothing is left; without value and failure it was cancelled.
    void end() noexcept {
        std::exception_ptr failure = std::move(failure_);
        if (has_begun_ && failure == nullptr) failure = mutex_left_locked();
        bool const pending = this->begin_setting();
        if (failure != nullptr || !pending) this->value.reset();
        if (!pending) return;
        if (failure != nullptr) return this->fail(std::move(failure));
        this->finish(this->value ? future_state::state::value : future_state::state::cancelled);
    }

private:
    struct attached {
        portal_task& task;
        attached(portal_task& of, cancel_scope& scope) : task(of) {
            std::lock_guard const guard(task.lock_);
            task.scope_ = &scope;
            if (task.cancel_requested_) cancel_because(scope, "its future was cancelled");
        }
        ~attached() {
            std::lock_guard const guard(task.lock_);
            task.scope_ = nullptr;
        }
    };

    template <class Call> void perform(Call& call) { // nobody looks before end()
        if constexpr (std::is_void_v<R>) {
            call();
            this->value.emplace();
        } else {
            this->value.emplace(call()); // a failed move is the call's failure
        }
    }
    void on_cancel() override {
        if (is_forked_child()) return; // the task is the parent's, and the lock may be nobody's
        std::lock_guard const guard(lock_);
        cancel_requested_ = true;
        if (scope_ != nullptr) cancel_because(*scope_, "its future was cancelled");
    }

    std::mutex lock_;
    bool cancel_requested_ = false;
    bool has_begun_ = false;        // by the task
    std::exception_ptr failure_;    //  "
    cancel_scope* scope_ = nullptr; // while the task runs
};

/// Held by the body of a portal's task: when that is gone the future is done, whether it ran or not.
template <class R> class portal_task_reference {
public:
    explicit portal_task_reference(std::shared_ptr<portal_task<R>> of) : task_(std::move(of)) {}
    portal_task_reference(portal_task_reference&&) noexcept = default;
    portal_task_reference& operator=(portal_task_reference&&) = delete;
    ~portal_task_reference() {
        if (task_ != nullptr) task_->end();
    }
    portal_task<R>* operator->() const { return task_.get(); }

private:
    std::shared_ptr<portal_task<R>> task_;
};

/// The body of a portal's task: the call, and who hears of it when the call is destroyed (T13).
template <class R, class F, class... Args> class portal_body : public tells_of_failure {
public:
    template <class G, class... Given>
    explicit portal_body(std::shared_ptr<portal_task<R>> of, G&& f, Given&&... given)
        : task_(std::move(of)), call_(std::forward<G>(f), std::forward<Given>(given)...) {}

    template <class... Status> void operator()(Status&... status) {
        task_->run([&]() -> R {
            return std::apply(
                [&](Args&... args) -> R {
                    return std::invoke(std::move(call_.function), status..., std::move(args)...);
                },
                call_.arguments);
        });
    }
    void fail(std::exception_ptr why) noexcept { task_->cannot_begin(std::move(why)); }
    F const& function() const noexcept { return call_.function; }

private:
    portal_task_reference<R> task_; // outlives the call
    bound_call<F, Args...> call_;
};

template <class R, class F, class... Args> struct named_function<portal_body<R, F, Args...>> {
    using type = F;
    static F const& of(portal_body<R, F, Args...> const& body) noexcept { return body.function(); }
};

} // namespace detail

/// A door into a run for OS threads: what they pass in runs in tasks of the run.
///
/// What a task throws goes to who asked for it, and to nobody else. The portal stays open until stop(),
/// and the body that opened it returns when the tasks have ended.
///
/// From stop() on each call is refused, and one that is under way has its task's outcome, but only while the
/// portal is there: it goes when with_blocking_portal() returns, or with its handle. A thread that may call
/// later is to be joined, or told, before.
///
/// Threads       call(), start_task_soon(), start_task(), wrap_scoped(): OS threads; stop(): any thread;
///               sleep_until_stopped(): tasks of the run
/// Cancellation  sleep_until_stopped() is a cancellation point; it leaves nothing behind. A call in a task of
///               another run is one, too, and its callee goes on
/// Errors        std::logic_error (from a task of the portal's own run, or a blocking_region that keeps
///               one of its workers); run_finished_error (stopped; in a child of fork());
///               future_cancelled (the task was cancelled, or let a cancellation of its own escape); what
///               the function throws
/// Source        AnyIO BlockingPortal
class blocking_portal {
public:
    blocking_portal() = default;
    blocking_portal(blocking_portal const&) = delete;
    blocking_portal& operator=(blocking_portal const&) = delete;

    /// Runs f(args...) in a task and waits for its end.
    template <class F, class... Args>
        requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
    auto call(F&& f, Args&&... args) {
        return start_task_soon(std::forward<F>(f), std::forward<Args>(args)...).get();
    }

    /// The same without waiting. Cancelling the future cancels the task.
    template <class F, class... Args>
        requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
    auto start_task_soon(F&& f, Args&&... args) {
        return start_task_soon(task_options{}, std::forward<F>(f), std::forward<Args>(args)...);
    }
    template <class F, class... Args>
        requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
    auto start_task_soon(task_options const& options, F&& f, Args&&... args) {
        using result = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>>;
        using body = detail::portal_body<result, std::decay_t<F>, std::decay_t<Args>...>;
        auto const task = std::make_shared<detail::portal_task<result>>(run_);
        spawn(options, body(task, std::forward<F>(f), std::forward<Args>(args)...));
        return future<result>(task);
    }

    /// Starts f(task_status<T>&, args...) and waits until it calls started(); gives its future with that
    /// value, or alone for void. Errors: what f throws before that; std::logic_error (it never does)
    template <class T = void, class F, class... Args>
        requires std::invocable<std::decay_t<F>, task_status<T>&, std::decay_t<Args>...>
    auto start_task(F&& f, Args&&... args) {
        using result = std::decay_t<
            std::invoke_result_t<std::decay_t<F>, task_status<T>&, std::decay_t<Args>...>>;
        using body = detail::portal_body<result, std::decay_t<F>, std::decay_t<Args>...>;
        auto const task = std::make_shared<detail::portal_task<result>>(run_);
        future<result> const outcome(task);
        // A helper task stands where group.start() must be called; it ends with it.
        auto start = [this, outcome,
                      given = body(task, std::forward<F>(f), std::forward<Args>(args)...)]() mutable -> T {
            try {
                return group_.start<T>(std::move(given));
            } catch (std::logic_error const&) { // it ended without started(): by its own error?
                if (outcome.done()) rethrow_failure(outcome);
                throw;
            }
        };
        if constexpr (std::is_void_v<T>) {
            call(std::move(start));
            return outcome;
        } else {
            T value = call(std::move(start));
            return std::pair<future<result>, T>(outcome, std::move(value));
        }
    }

    /// What wrap_scoped() gives: the OS thread's access to an object that lives in a task. Destroyed, it
    /// waits until the object is, also in a task (of another run) that is cancelled; in a child of fork() it
    /// does nothing.
    template <class Made> class scoped_handle {
    public:
        scoped_handle(scoped_handle&&) noexcept = default;
        scoped_handle& operator=(scoped_handle&&) = delete;
        ~scoped_handle() {
            if (shared_ == nullptr || detail::is_forked_child()) return; // there it is the parent's object
            shared_->release.set();
            if (detail::current_fiber() == nullptr)
                end_.wait_for(duration::max());
            else
                shielded([&] { end_.wait_for(duration::max()); }); // nothing may leave a destructor
        }
        Made& operator*() const noexcept { return *shared_->object; }
        Made* operator->() const noexcept { return shared_->object; }

    private:
        friend class blocking_portal;
        struct shared {
            event release;
            Made* object = nullptr; // in the task's frame
        };
        scoped_handle(std::shared_ptr<shared> of, future<void> end)
            : shared_(std::move(of)), end_(std::move(end)) {}
        std::shared_ptr<shared> shared_;
        future<void> end_;
    };

    /// Runs make() in a task, which keeps what it made until the handle is destroyed, and destroys it
    /// then; neither cancellation nor stop() takes it away before.
    template <class Make>
        requires std::invocable<std::decay_t<Make>>
    auto wrap_scoped(Make&& make) {
        using made = std::decay_t<std::invoke_result_t<std::decay_t<Make>>>;
        using handle = scoped_handle<made>;
        auto const shared = std::make_shared<typename handle::shared>();
        promise<void> made_promise; // goes with the task, whatever becomes of that
        future<void> const is_made = made_promise.get_future();
        is_made.state_->is_completed_in(run_);
        future<void> const end = start_task_soon(
            [shared, ready = std::move(made_promise),
             make = std::decay_t<Make>(std::forward<Make>(make))]() mutable {
                made object(std::invoke(std::move(make)));
                shared->object = &object;
                ready.set_value();
                shielded([&] { shared->release.wait(); });
            });
        try {
            is_made.get();
        } catch (future_cancelled const&) {
            end.get(); // says why
            throw;
        } catch (...) { // cancelled, as a task of another run: what is made goes at once
            shared->release.set();
            throw;
        }
        return handle(shared, end);
    }

    /// Waits until somebody calls stop().
    void sleep_until_stopped() { stopped_.wait(); }

    /// Takes no further calls. `cancel_remaining`: what runs is cancelled; else it is waited for.
    void stop(bool cancel_remaining = false);

private:
    template <class Body>
    friend auto with_blocking_portal(Body&&) -> detail::body_result<Body, blocking_portal>;
    friend class from_thread::portal_handle;

    /// The run's side: the portal is open while the body runs. The last lock waits for whoever is still
    /// in a call of stop() or spawn(), after which the portal may be destroyed.
    template <class Body> auto host(Body&& body) -> detail::body_result<Body, blocking_portal> {
        struct closing {
            blocking_portal& portal;
            ~closing() {
                if (detail::is_forked_child()) return; // there the lock may be nobody's
                std::lock_guard const last(portal.lock_);
            }
        } const at_the_end{*this};
        struct stopping {
            blocking_portal& portal;
            ~stopping() {
                if (!detail::is_forked_child()) portal.stop();
            }
        };
        detail::outside_work const door(detail::outside_work::kind::door);
        return group_.run([&](task_group&) -> detail::body_result<Body, blocking_portal> {
            open();
            stopping const after_the_body{*this};
            return detail::body_call<Body, blocking_portal>::call(body, *this);
        });
    }

    template <class R> static void rethrow_failure(future<R> const& of) {
        if (of.state_->now() != detail::future_state::state::value)
            of.state_->wait_for_value("blocking_portal.start_task");
    }

    template <class Body> void spawn(task_options const& options, Body&& body) {
        refuse_own_tasks();
        std::lock_guard const guard(lock_);
        refuse_if_stopped();
        group_.start_soon(options, std::forward<Body>(body));
    }
    void refuse_own_tasks() const;
    void refuse_if_stopped() const; // under lock_
    void open();

    std::mutex lock_;  // a call is either taken and waited for, or refused (B15)
    bool open_ = false;              // under lock_
    detail::runtime const* run_ = nullptr; // set by open()
    event stopped_;
    task_group group_;
};

/// Runs the body with a portal, in a task; returns when the portal's tasks have ended, too. Errors: as
/// with_task_group(). Source: AnyIO BlockingPortal as a context manager
///
/// The portal is in this call's frame: a thread that calls it ends before the body or a task of the portal
/// does. It is joined by to_thread::run_sync(), since its calls need the workers; shielded, in a task of the
/// portal for instance, where the body may be cancelled or throw.
template <class Body>
auto with_blocking_portal(Body&& body) -> detail::body_result<Body, blocking_portal> {
    detail::require_fiber("with_blocking_portal");
    blocking_portal portal;
    return portal.host(std::forward<Body>(body));
}

namespace from_thread {

/// A runtime on threads of its own, with a portal. Destroyed, it stops the portal, waits for its tasks
/// and joins the threads; while an exception is in flight it cancels the tasks first.
///
/// That blocks the calling thread until the last of the portal's tasks has ended, and with it the worker of
/// a task that does so: such a handle does not belong in a task. In a child of fork() nothing is done.
///
/// The portal goes with the handle: a thread that may call later, and be refused, is joined before that, by
/// an object behind the handle for instance.
///
/// Threads  one thread; the portal as it says
class portal_handle {
public:
    portal_handle(portal_handle&&) noexcept;
    portal_handle& operator=(portal_handle&&) = delete;
    ~portal_handle();

    blocking_portal& operator*() const noexcept;
    blocking_portal* operator->() const noexcept;
    void stop(bool cancel_remaining = false);

private:
    friend portal_handle start_blocking_portal(run_options const&);
    friend class blocking_portal_provider;
    struct running;
    explicit portal_handle(std::unique_ptr<running>);
    std::unique_ptr<running> running_;
};

/// Starts a runtime with a portal in a new thread. Errors: as run(). Source: AnyIO start_blocking_portal
portal_handle start_blocking_portal(run_options const& = {});

/// A portal that threads share: the first to come starts it, the last to leave stops it and waits for its
/// tasks, which may be those of others, also while an exception is in flight. A child of fork() leaves it alone.
///
/// Threads  any OS thread that runs no task
/// Errors   acquire(): as start_blocking_portal(); std::logic_error (from a task, of whatever run)
/// Source   AnyIO BlockingPortalProvider
class blocking_portal_provider {
    struct shared;

public:
    /// The portal, as long as this lives: a thread that may call it for longer has a lease of its own, or is
    /// joined, or told, before.
    class lease {
    public:
        lease(lease&&) noexcept = default;
        lease& operator=(lease&&) = delete;
        ~lease();
        blocking_portal& operator*() const noexcept;
        blocking_portal* operator->() const noexcept;

    private:
        friend class blocking_portal_provider;
        explicit lease(std::shared_ptr<shared>, portal_handle&);
        std::shared_ptr<shared> shared_;
        portal_handle* portal_;
    };

    explicit blocking_portal_provider(run_options = {});
    auto acquire() -> lease;

private:
    std::shared_ptr<shared> shared_;
};

} // namespace from_thread
} // namespace weft
