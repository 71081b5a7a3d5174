#include <weft/sync/from_thread.hpp>

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/error.hpp>

#include <mutex>
#include <new>
#include <string>

namespace weft {

namespace {

std::shared_ptr<detail::thread_call> call_of_thread(char const* call) {
    detail::refuse_in_forked_child(call);
    if (detail::current_fiber() == nullptr) // else a task of a run in the call, that is here by chance
        if (auto current = detail::current_thread_call()) return current;
    throw no_event_loop_error(std::string(call) +
                              " was called outside of a function that to_thread::run_sync runs");
}

// A cancellation counts from when it was made, not from when the waiting task has noted it: that may take
// long where its worker is busy (F7). Not waiting yet, or going on from a wait, it runs and is in our code.
std::exception_ptr cancellation_of(detail::thread_call& call) {
    std::unique_lock guard(call.lock);
    if (call.host == nullptr) return nullptr;
    call.is_looked_at = true;
    call.host_waits.wait(guard, [&call] { return call.has_waiter || call.cancellation != nullptr; });
    call.is_looked_at = false;
    return call.cancellation != nullptr ? call.cancellation : detail::pending_cancellation(*call.host);
}

// On the thread's stack: whoever says `done` does not touch it afterwards.
class own_task final : public detail::system_job {
public:
    own_task(detail::thread_call& call, detail::task_request& request)
        : call_(call), request_(request) {}

    void run() noexcept override {
        {
            detail::context_in_use const of_thread(request_.context);
            request_.run();
        }
        end();
    }
    void cannot_run() noexcept override {
        request_.fail(std::make_exception_ptr(std::bad_alloc()));
        end();
    }
    void wait() {
        std::unique_lock guard(call_.lock);
        request_.answered.wait(guard, [&] { return request_.done; });
    }

private:
    void end() {
        std::lock_guard const guard(call_.lock); // the thread keeps the call until it has the lock
        request_.done = true;
        request_.answered.notify_one();
    }

    detail::thread_call& call_;
    detail::task_request& request_;
};

} // namespace

// The task may leave an abandoned call at any moment, so that what the thread asks for is not its affair
// (F5, F6). A call that it cannot leave has its task, whose wake is under the lock (F11).
void detail::run_in_waiting_task(task_request& request, char const* name) {
    std::shared_ptr<thread_call> const call = call_of_thread(name);
    if (call->abandon_on_cancel) {
        own_task task(*call, request);
        if (!call->tasks->start(task))
            throw run_finished_error(std::string(name) + ": the run that made this call is over");
        task.wait();
        return;
    }
    std::unique_lock guard(call->lock);
    call->request = &request;
    if (call->has_waiter) wake(call->waiter, wake_reason::event);
    request.answered.wait(guard, [&] { return request.done; });
}

void from_thread::check_cancelled() {
    std::shared_ptr<detail::thread_call> const call = call_of_thread("from_thread.check_cancelled");
    if (std::exception_ptr const cancellation = cancellation_of(*call)) std::rethrow_exception(cancellation);
}

} // namespace weft
