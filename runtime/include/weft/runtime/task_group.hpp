#pragma once

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/detail/task_body.hpp>

#include <concepts>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace weft {

class task_group;

namespace detail {
struct handle_access;
}

/// Says that a task is ready for what its starter waits for. See task_group::start. One that is made by
/// default is heard by nobody: a function that wants one can be called, or started by start_soon(), without
/// anybody waiting for it to be ready.
///
/// Threads  started() by any task, once
/// Errors   std::logic_error (called twice)
/// Source   AnyIO TaskStatus
template <class T = void> class task_status {
public:
    task_status() = default;
    void started(T value) {
        if (record_ == nullptr) return; // S14
        record_->check_not_started();
        value_->emplace(std::move(value));
        record_->started();
    }

private:
    friend class task_group;
    using place = std::optional<T>;
    task_status(std::shared_ptr<detail::start_record> of, std::shared_ptr<place> value)
        : record_(std::move(of)), value_(std::move(value)) {}
    std::shared_ptr<detail::start_record> record_;
    std::shared_ptr<place> value_; // not in the record, whose end is that of the task: this one's may wait
};

template <> class task_status<void> {
public:
    task_status() = default;
    void started() {
        if (record_ != nullptr) record_->started(); // S14
    }

private:
    friend class task_group;
    struct place {};
    task_status(std::shared_ptr<detail::start_record> of, std::shared_ptr<place>) : record_(std::move(of)) {}
    std::shared_ptr<detail::start_record> record_;
};

/// A reference to a child of a task group. Copies name the same child; dropping one changes nothing.
///
/// wait() gives the child's value: a copy each time, or for a move-only type the value itself, once. The
/// child's failure is reported through its group all the same (NX4).
///
/// Threads       wait() by tasks; the rest by any thread
/// Cancellation  wait() is a cancellation point; cancelled, it took nothing
/// Errors        wait(): task_failed with the child's error nested; task_cancelled; std::logic_error (a
///               move-only value was taken before)
/// Source        AnyIO TaskHandle
template <class R> class task_handle {
public:
    R wait() const {
        task_.wait_until_done();
        if constexpr (!std::is_void_v<R>) {
            auto& result = *static_cast<detail::task_value<R>*>(task_.body());
            if constexpr (std::copy_constructible<R>) {
                return result.value;
            } else {
                if (result.taken.exchange(true, std::memory_order_relaxed)) // decides nothing else
                    throw std::logic_error("the task's value was taken before");
                return std::move(result.value);
            }
        }
    }
    void cancel() const { task_.cancel(); }
    bool done() const { return task_.done(); }
    bool cancelled() const { return task_.cancelled(); }
    task_info info() const { return task_.info(); }

private:
    friend class task_group;
    friend struct detail::handle_access;
    explicit task_handle(detail::fiber& child) : task_(child) {}
    detail::task_reference task_;
};

/// What the layers above do with handles beyond their public face.
struct detail::handle_access {
    /// However the task ends, and without its value. No cancellation point.
    template <class R> static void wait_until_ended(task_handle<R> const& of) {
        of.task_.wait_until_ended();
    }
};

/// A set of tasks that ends as one: run() returns when its body and all children have ended.
///
/// The first failure, of the body or of a child, cancels the rest; whatever failed leaves as one
/// exception_group, also a single error. Children start at some later point, perhaps at once on another
/// worker. They inherit the scopes around the group, not those that the body opens.
///
/// Not copied, not moved, run once.
///
/// Threads       run() by one task; start_soon(), create_task(), cancel() by any thread while it is open;
///               start() by any task of the same run
/// Cancellation  leaving waits for the children and cannot be cut short; it always yields. start() is
///               not a cancellation point on entry; cancelled, it waits for the child's end
/// Errors        std::logic_error (not open, run twice, start() from another run); exception_group (from
///               run())
/// Source        AnyIO TaskGroup
class task_group {
public:
    task_group() : task_group(detail::scope_opener::task_group) {}
    task_group(task_group const&) = delete;
    task_group& operator=(task_group const&) = delete;

    /// Runs the body with the group open. A void body that the group's own cancellation cut short just
    /// returns; one with a value throws task_cancelled.
    template <detail::body_of<task_group> Body>
    auto run(Body&& body) -> detail::body_result<Body, task_group> {
        using call = detail::body_call<Body, task_group>;
        using result = detail::body_result<Body, task_group>;
        if constexpr (std::is_void_v<result>) {
            run_in_scope([&] { call::call(body, *this); });
        } else {
            std::optional<result> value;
            run_in_scope([&] { value.emplace(call::call(body, *this)); });
            if (!value) detail::throw_cut_short("the body of the task group was cancelled");
            return *std::move(value);
        }
    }

    /// Starts f(args...) as a child; what it returns is dropped. Never waits.
    template <class F, class... Args>
        requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
    [[gnu::noinline]] void start_soon(F&& f, Args&&... args) {
        spawn<void, false>({}, __builtin_return_address(0), std::forward<F>(f),
                           std::forward<Args>(args)...);
    }
    template <class F, class... Args>
        requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
    [[gnu::noinline]] void start_soon(task_options const& options, F&& f, Args&&... args) {
        spawn<void, false>(options, __builtin_return_address(0), std::forward<F>(f),
                           std::forward<Args>(args)...);
    }

    /// The same, with a handle to the child.
    template <class F, class... Args>
        requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
    [[gnu::noinline]] auto create_task(F&& f, Args&&... args) {
        using result = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>>;
        return task_handle<result>(spawn<result, true>({}, __builtin_return_address(0),
                                                       std::forward<F>(f),
                                                       std::forward<Args>(args)...));
    }
    template <class F, class... Args>
        requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
    [[gnu::noinline]] auto create_task(task_options const& options, F&& f, Args&&... args) {
        using result = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>>;
        return task_handle<result>(spawn<result, true>(options, __builtin_return_address(0),
                                                       std::forward<F>(f),
                                                       std::forward<Args>(args)...));
    }

    /// Starts f(task_status<T>&, args...) and waits until it calls started(); gives that value. Until
    /// then the caller answers for the child: the caller's cancellation reaches it, and its error leaves
    /// from here and nowhere else. Errors: std::logic_error (the child ended without started(); the group is
    /// of another run: nothing was started); task_cancelled (the child let a cancellation of its own escape)
    template <class T = void, class F, class... Args>
        requires std::invocable<std::decay_t<F>, task_status<T>&, std::decay_t<Args>...>
    [[gnu::noinline]] T start(F&& f, Args&&... args) {
        return start_as<T>({}, __builtin_return_address(0), std::forward<F>(f),
                           std::forward<Args>(args)...);
    }
    template <class T = void, class F, class... Args>
        requires std::invocable<std::decay_t<F>, task_status<T>&, std::decay_t<Args>...>
    [[gnu::noinline]] T start(task_options const& options, F&& f, Args&&... args) {
        return start_as<T>(options, __builtin_return_address(0), std::forward<F>(f),
                           std::forward<Args>(args)...);
    }

    class weft::cancel_scope& cancel_scope() { return scope_; }
    void cancel(std::string reason = {}) { scope_.cancel(std::move(reason)); }

private:
    template <class Body> void run_in_scope(Body&& body) {
        state_.check_new();
        scope_.run([&] {
            open();
            bool cut_short = false;
            try {
                body();
            } catch (cancelled const&) { // passed on by finish(), if nothing failed
                cut_short = true;
                detail::cancel_because(scope_, "the body of the task group was cancelled");
            } catch (...) { // leaves with the group
                state_.host_failed(std::current_exception());
            }
            finish(cut_short);
        });
    }
    void open();
    void finish(bool cut_short); // waits for the children; throws what leaves the group

    template <class R, bool WithHandle, class F, class... Args>
    detail::fiber& spawn(task_options const& options, void const* site, F&& f, Args&&... args) {
        using body = detail::task_body<R, std::decay_t<F>, std::decay_t<Args>...>;
        detail::new_task task(options, body::size, body::alignment);
        auto* const call = new (task.place())
            typename body::call(std::forward<F>(f), std::forward<Args>(args)...);
        task.set_body(body::operations, detail::address_if_function(call->function), site);
        if constexpr (WithHandle) task.keep_for_handle();
        return task.launch(state_);
    }

    template <class T, class F, class... Args>
    T start_as(task_options const& options, void const* site, F&& f, Args&&... args) {
        using status = task_status<T>;
        auto const record = std::make_shared<detail::start_record>();
        std::shared_ptr<typename status::place> value;
        if constexpr (!std::is_void_v<T>) value = std::make_shared<typename status::place>();
        auto call = [record, value](std::decay_t<F>& function, std::decay_t<Args>&... given) {
            status ready(record, value);
            std::invoke(std::move(function), ready, std::move(given)...);
        };
        using body = detail::start_body<decltype(call), std::decay_t<F>, std::decay_t<Args>...>;
        detail::new_task task(options, body::size, body::alignment);
        auto* const place = new (task.place())
            typename body::call(std::move(call), std::forward<F>(f), std::forward<Args>(args)...);
        task.set_body(body::operations, detail::address_if_function(place->function), site);
        record->start(task, state_);
        if constexpr (!std::is_void_v<T>) return *std::move(*value);
    }

    template <detail::body_of<task_group> Body>
    friend auto with_task_group(Body&&) -> detail::body_result<Body, task_group>;
    explicit task_group(detail::scope_opener by)
        : scope_(detail::timed_scope::at(time_point::max(), false, by)), state_(scope_) {}

    weft::cancel_scope scope_;
    detail::group_state state_;
};

/// task_group().run(body). Source: AnyIO create_task_group
template <detail::body_of<task_group> Body>
auto with_task_group(Body&& body) -> detail::body_result<Body, task_group> {
    task_group group(detail::scope_opener::with_task_group);
    return group.run(std::forward<Body>(body));
}

} // namespace weft
