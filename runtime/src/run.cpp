#include <weft/runtime/run.hpp>

#include "context_values.hpp"
#include "demangle.hpp"
#include "error_pointer.hpp"
#include "mutex_wait.hpp"
#include "runtime.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/detail/swallowed.hpp>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>
#include <typeinfo>
#include <utility>

namespace weft {

std::vector<std::string> all_backends() {
    return {"epoll", "sim"};
}

namespace detail {

namespace {

// The first task: the caller's body, and then the end of the run, however the body ends.
struct first_body {
    runtime& run;
    body_operations const& operations;
    void* body;
    std::exception_ptr failure;

    void operator()() noexcept {
        try {
            operations.run(*current_fiber(), body);
        } catch (cancelled const&) { // nobody can cancel it: a foreign `cancelled` was thrown on
            failure = error_or_bad_alloc([] { return task_cancelled("the first task was cancelled"); });
            note_cancellation_handled(*current_fiber());
        } catch (...) { // leaves from run()
            failure = std::current_exception();
        }
        if (failure == nullptr) failure = mutex_left_locked(*current_fiber());
        release_context(std::exchange(current_fiber()->context_variables, nullptr)); // RV4: may wait, so before the end
        run.system->close();
        run.stop();
    }

    // There was no stack for it. Nobody else ends the run.
    void cannot_begin() noexcept {
        if (run.stopping.load(std::memory_order_relaxed)) return; // no thread could be had; nothing runs
        failure = error_or_bad_alloc([this] {
            return std::system_error(ENOMEM, std::system_category(),
                                     "no stack of " +
                                         std::to_string(stack_classes::bytes_of(run.stack_class)) +
                                         " bytes for the first task of run()" + stack_depot::shortage());
        });
        run.system->close(); // it has no tasks: nobody waits
        run.stop();
    }
};

first_body& body_at(void* place) noexcept {
    return **static_cast<first_body**>(place);
}

// Who looks at the first task may keep its block for longer than run() lasts: nothing that the block
// refers to may be in run()'s frame. So one table for all, and the name in the block.
constexpr body_operations first_body_operations{[](fiber&, void* place) { body_at(place)(); },
                                                [](void* place) { body_at(place).cannot_begin(); },
                                                nullptr, typeid(first_body)};

std::string name_of(body_operations const& operations, void const* function) {
    return function == nullptr ? demangled(operations.type.name()) : std::string(); // else: its address
}

// For what the run itself takes; what its tasks lack is theirs to tell.
template <class Call> auto with_memory_for(char const* what, Call&& call) {
    try {
        return call();
    } catch (std::bad_alloc const&) {
        std::rethrow_exception(error_or_bad_alloc([what] {
            return std::system_error(ENOMEM, std::system_category(),
                                     std::string("no memory for ") + what + " of run()");
        }));
    }
}

} // namespace

void run_first_task(run_options const& options, body_operations const& operations, void* body,
                    void const* function, void const* call_site) {
    refuse_in_forked_child("run()");
    if (this_worker() != nullptr)
        throw std::logic_error("run() was called inside a run() of the same thread");
    runtime run = with_memory_for("the workers", [&] { return runtime(options); });
    first_body first{run, operations, body, nullptr};
    {
        new_task task = with_memory_for("the first task", [&] {
            return new_task({.name = name_of(operations, function)}, sizeof(first_body*), alignof(first_body*));
        });
        *static_cast<first_body**>(task.place()) = &first;
        task.set_body(first_body_operations, function, call_site);
        with_memory_for("the workers", [&] { run.run(task); });
    }
    if (!run.deadlock().empty())
        throw deadlock_error("deadlock: every task waits, and nothing can end a wait\n" + run.deadlock());
    if (first.failure != nullptr) std::rethrow_exception(first.failure);
}

} // namespace detail
} // namespace weft
