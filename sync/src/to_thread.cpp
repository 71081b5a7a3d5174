#include <weft/sync/to_thread.hpp>

#include "thread_pool.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/service.hpp>

#include <mutex>

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

// Waits until the call has finished or the task is cancelled. True: it has finished.
bool wait_for_thread(detail::thread_call& call, detail::cancellable how) {
    detail::parking wait(name_of_call, how);
    {
        std::lock_guard const guard(call.lock);
        if (call.now == detail::thread_call::state::finished) {
            wait.withdraw(); // whoever was first: it is done
            return true;
        }
        call.waiter = wait.reference();
        call.has_waiter = true;
    }
    wait.suspend();
    std::lock_guard const guard(call.lock);
    call.has_waiter = false;
    return call.now == detail::thread_call::state::finished;
}

bool wait_or_notice_cancellation(detail::thread_call& call, detail::cancellable how) {
    try {
        return wait_for_thread(call, how);
    } catch (cancelled const&) { // on the way into the wait; thrown again later
        return false;
    }
}

} // namespace

void detail::run_in_thread(std::shared_ptr<thread_call> const& call, bool abandon_on_cancel,
                           capacity_limiter* limiter) {
    fiber& self = enter_blocking_call(name_of_call);
    if (limiter == nullptr) {
        call->kept_limiter = service_of_run<default_thread_limiter>(name_of_call).limiter;
        limiter = call->kept_limiter.get();
    }
    call->limiter = limiter;
    token borrowed(*call);
    service_of_run<thread_pool>(name_of_call).submit(call);
    if (!wait_or_notice_cancellation(*call, cancellable::yes)) {
        std::unique_lock guard(call->lock);
        call->cancel_seen = true;
        if (call->now != thread_call::state::finished && abandon_on_cancel) {
            call->now = thread_call::state::abandoned;
            guard.unlock();
            borrowed.leave_to_thread();
            throw_cancelled(self);
        }
        guard.unlock();
        while (!wait_for_thread(*call, cancellable::no)) {} // T3: raised by the next call
    }
    if (call->error != nullptr) std::rethrow_exception(std::exchange(call->error, nullptr));
}

capacity_limiter& to_thread::current_default_thread_limiter() {
    return *service_of_run<default_thread_limiter>("to_thread.current_default_thread_limiter").limiter;
}

} // namespace weft
