#include <weft/sync/from_thread.hpp>

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/error.hpp>

#include <mutex>
#include <string>

namespace weft {

namespace {

std::shared_ptr<detail::thread_call> call_of_thread(char const* call) {
    detail::refuse_in_forked_child(call);
    if (auto current = detail::current_thread_call()) return current;
    throw no_event_loop_error(std::string(call) +
                              " was called outside of a function that to_thread::run_sync runs");
}

} // namespace

void detail::run_in_waiting_task(task_request& request, char const* name) {
    std::shared_ptr<thread_call> const call = call_of_thread(name);
    std::unique_lock guard(call->lock);
    if (call->now == thread_call::state::abandoned)
        throw run_finished_error(std::string(name) + ": the task that made this call has left it");
    call->request = &request;
    // The wake is under the lock, so that the task cannot have left, nor its run have ended.
    if (call->has_waiter) wake(call->waiter, wake_reason::event);
    request.answered.wait(guard, [&] { return request.done; });
}

void from_thread::check_cancelled() {
    std::shared_ptr<detail::thread_call> const call = call_of_thread("from_thread.check_cancelled");
    std::exception_ptr cancellation;
    {
        std::lock_guard const guard(call->lock);
        cancellation = call->cancellation;
    }
    if (cancellation != nullptr) std::rethrow_exception(cancellation);
}

} // namespace weft
