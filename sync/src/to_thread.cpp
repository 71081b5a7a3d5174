#include <weft/sync/to_thread.hpp>

#include "thread_pool.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/outside_work.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/service.hpp>
#include <weft/runtime/detail/swallowed.hpp>

#include <condition_variable>
#include <mutex>
#include <new>
#include <utility>

namespace weft {

namespace {

constexpr double default_number_of_threads = 40;

// The run's default limiter. Calls that were abandoned keep it alive beyond the run.
class default_thread_limiter final : public detail::service {
public:
    void close() noexcept override {}

    std::shared_ptr<capacity_limiter> const limiter =
        std::make_shared<capacity_limiter>(default_number_of_threads);
};

template <class Service> Service& service_of_run(char const* call) {
    return detail::current_services(call).get<Service>([] { return std::make_unique<Service>(); });
}

constexpr char const* name_of_call = "to_thread.run_sync";

// A call's token. Left to the thread if the call is abandoned.
class token {
public:
    explicit token(detail::thread_call& borrower) : borrower_(&borrower) {
        borrower.limiter->acquire_on_behalf_of(borrower_);
    }
    ~token() {
        if (borrower_ != nullptr) borrower_->limiter->release_on_behalf_of(borrower_);
    }
    token(token const&) = delete;
    token& operator=(token const&) = delete;
    void leave_to_thread() { borrower_ = nullptr; }

private:
    detail::thread_call* borrower_;
};

enum class reason { finished, request, cancelled };

reason look(detail::thread_call const& call) { // under its lock
    if (call.now == detail::thread_call::state::finished) return reason::finished;
    return call.request != nullptr ? reason::request : reason::cancelled;
}

// Waits until the thread has finished, or wants something, or the task is cancelled.
reason wait_for_thread(detail::thread_call& call, detail::cancellable how) {
    detail::parking wait(name_of_call, how);
    {
        std::lock_guard const guard(call.lock);
        if (look(call) != reason::cancelled) {
            wait.withdraw(); // whoever was first: what there is comes first
            return look(call);
        }
        call.waiter = wait.reference();
        call.has_waiter = true;
        if (call.is_looked_at) call.host_waits.notify_one();
    }
    wait.suspend();
    std::lock_guard const guard(call.lock);
    call.has_waiter = false;
    return look(call);
}

reason wait_or_notice_cancellation(detail::thread_call& call, detail::cancellable how) {
    detail::outside_work const thread(detail::outside_work::kind::call);
    try {
        return wait_for_thread(call, how);
    } catch (cancelled const&) { // on the way into the wait; thrown again later
        detail::note_cancellation_handled(*detail::current_fiber());
    } catch (std::bad_alloc const&) { // there, too: cancelled, and no memory to say so
    }
    std::lock_guard const guard(call.lock);
    return look(call);
}

// In the waiting task, under its scopes (F4).
void answer(detail::thread_call& call) {
    detail::task_request* request = nullptr;
    {
        std::lock_guard const guard(call.lock);
        request = std::exchange(call.request, nullptr);
    }
    {
        detail::context_in_use const of_thread(request->context);
        request->run();
    }
    std::lock_guard const guard(call.lock); // the request is gone once the thread has seen `done`
    request->done = true;
    request->answered.notify_one();
}

// For the thread, and for us. Without memory for it the thread is told just that.
std::exception_ptr make_cancellation(detail::fiber& self) {
    try {
        detail::throw_cancelled(self);
    } catch (cancelled const&) {
        detail::note_cancellation_handled(self);
        return std::current_exception();
    } catch (std::bad_alloc const&) {
        return std::current_exception();
    }
}

// True: the call goes on without us.
bool note_cancellation(detail::thread_call& call, detail::fiber& self) {
    std::exception_ptr made = make_cancellation(self);
    std::lock_guard const guard(call.lock);
    call.cancellation = std::move(made);
    if (call.is_looked_at) call.host_waits.notify_one();
    if (!call.abandon_on_cancel || look(call) != reason::cancelled) return false;
    call.now = detail::thread_call::state::abandoned;
    return true;
}

// False: the call goes on without us.
bool wait_for_end(detail::thread_call& call, detail::fiber& self) {
    auto how = detail::cancellable::yes;
    for (;;) {
        reason const why = wait_or_notice_cancellation(call, how);
        if (why == reason::finished) return true;
        if (why == reason::request) {
            answer(call);
        } else if (how == detail::cancellable::yes) {
            if (note_cancellation(call, self)) return false;
            if (!call.abandon_on_cancel) how = detail::cancellable::no;
        }
    }
}

} // namespace

// The task waits until the call has finished, and does meanwhile what the thread asks for. A cancellation
// ends the wait of a call that may be abandoned; of others it is noted for the thread, and raised by the
// task's next cancellation point (T3).
//
// From submit() on nothing but `cancelled` leaves before the thread has finished, which may be at work in
// our frame. The deadlines, which need memory, are armed before.
void detail::run_in_thread(std::shared_ptr<thread_call> const& call, capacity_limiter* limiter) {
    fiber& self = enter_blocking_call(name_of_call);
    if (limiter == nullptr) {
        call->kept_limiter = service_of_run<default_thread_limiter>(name_of_call).limiter;
        limiter = call->kept_limiter.get();
    }
    call->limiter = limiter;
    call->host = &self;
    if (call->abandon_on_cancel) call->tasks = current_system_tasks(name_of_call);
    token borrowed(*call);
    notice_deadlines(self);
    if (is_cancelled(self)) throw_cancelled(self); // a deadline may have passed while the task computed (T1)
    service_of_run<thread_pool>(name_of_call).submit(call);
    if (!wait_for_end(*call, self)) {
        borrowed.leave_to_thread();
        throw_cancelled(self);
    }
    if (call->error != nullptr) std::rethrow_exception(std::exchange(call->error, nullptr));
}

bool detail::run_in_background(std::shared_ptr<thread_call> const& call) noexcept {
    try {
        service_of_run<thread_pool>(name_of_call).submit(call);
        return true;
    } catch (std::exception const&) { // the caller does it itself
        return false;
    }
}

capacity_limiter& to_thread::current_default_thread_limiter() {
    return *service_of_run<default_thread_limiter>("to_thread.current_default_thread_limiter").limiter;
}

} // namespace weft
