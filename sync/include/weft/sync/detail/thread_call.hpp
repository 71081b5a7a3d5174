#pragma once

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/detail/kept_context.hpp>
#include <weft/runtime/detail/system_tasks.hpp>
#include <weft/runtime/detail/task_body.hpp>

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

namespace weft {

class capacity_limiter;

namespace detail {

/// Something that a thread wants done by the task that waits for it, or, if that may leave the call at any
/// moment, by a task of its own. On the thread's stack.
class task_request {
public:
    virtual ~task_request() = default;
    virtual void run() noexcept = 0; ///< keeps what it gives or throws
    virtual void fail(std::exception_ptr) noexcept = 0; ///< it could not be run

    kept_context const context; // of the thread (F8)
    bool done = false; // under the call's lock
    std::condition_variable answered;
};

/// One call that a task sent to a thread. Shared by both sides; neither relies on the other being there.
///
/// States: queued -> running (the thread) -> finished (the thread), or abandoned (the task, from queued
/// or running). The lock decides who leaves first: a thread that finishes wakes the task; the thread of
/// an abandoned call gives the token back and has nothing more to do with the run.
class thread_call {
public:
    enum class state : unsigned char { queued, running, finished, abandoned };

    thread_call() = default;
    virtual ~thread_call() = default;
    thread_call(thread_call const&) = delete;
    thread_call& operator=(thread_call const&) = delete;

    virtual void execute() = 0;       ///< runs the function and destroys it; throws what it throws
    virtual void discard() noexcept = 0; ///< destroys the function without running it

    kept_context const context; // of the task (T11)
    std::mutex lock;
    state now = state::queued;       // under lock
    std::exception_ptr cancellation; // the waiting task is, or was, to be cancelled. Under lock
    task_request* request = nullptr; // for the waiting task. Under lock
    bool has_waiter = false;         // under lock
    wait_ref waiter;                 //  "
    fiber* host = nullptr;           // the waiting task; null: nobody waits
    bool is_looked_at = false;       // the thread waits for its host to wait. Under lock
    std::condition_variable host_waits;
    bool abandon_on_cancel = false;
    std::shared_ptr<system_tasks> tasks; // of the run, for the requests of a call that may be abandoned
    capacity_limiter* limiter = nullptr;              // where its token comes from
    std::shared_ptr<capacity_limiter> kept_limiter;   // the same, if it is the run's default
    std::exception_ptr error;        // by the thread, before `finished`
};

/// Sends the call to a thread of the run's pool and waits until it has finished. Throws what it threw.
void run_in_thread(std::shared_ptr<thread_call> const&, capacity_limiter* or_default);

/// Hands the call to a thread of the run's pool; nobody waits for it, but run() returns after it. What it
/// throws is dropped. Never suspends: for destructors. False: not in a task, or no thread can be had.
bool run_in_background(std::shared_ptr<thread_call> const&) noexcept;

/// The call that the current OS thread executes, or null.
std::shared_ptr<thread_call> current_thread_call();

/// A call with its function, its arguments and the place for its value.
template <class R, class F, class... Args> class typed_thread_call final : public thread_call {
public:
    template <class G, class... Given>
    explicit typed_thread_call(std::in_place_t, G&& g, Given&&... given)
        : call_(std::in_place, std::forward<G>(g), std::forward<Given>(given)...) {}

    void execute() override {
        struct end_of_call {
            std::optional<bound_call<F, Args...>>& call;
            ~end_of_call() { call.reset(); }
        } const guard{call_};
        if constexpr (std::is_void_v<R>)
            call_->invoke();
        else
            value_.emplace(call_->invoke());
    }
    void discard() noexcept override { call_.reset(); }

    /// Leaves nothing for the thread, which lets the call go at some time later.
    R take() {
        if constexpr (!std::is_void_v<R>) {
            R taken = *std::move(value_);
            value_.reset();
            return taken;
        }
    }

private:
    std::optional<bound_call<F, Args...>> call_;
    std::optional<std::conditional_t<std::is_void_v<R>, int, R>> value_;
};

} // namespace detail
} // namespace weft
