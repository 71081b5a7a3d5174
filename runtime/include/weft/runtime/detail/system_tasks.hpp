#pragma once

#include <weft/runtime/cancel_scope.hpp>

#include <cstddef>
#include <memory>
#include <mutex>

namespace weft::detail {

class runtime;
struct fiber;

/// Something to be done in a task that belongs to the run and to no task of the program. Owned by whoever
/// waits for it, and not touched any more once one of its functions was called.
class system_job {
public:
    virtual void run() noexcept = 0; ///< under a scope that the end of the run cancels
    virtual void cannot_run() noexcept = 0; ///< there was no stack for the task

protected:
    ~system_job() = default;
};

/// The tasks of a run that nobody of the program hosts: what threads ask for whose task may have left
/// them. When the first task's body has ended they are cancelled, and run() returns after them (E11).
///
/// Shared: threads that outlive the run find it closed. Threads: start() any.
class system_tasks : public std::enable_shared_from_this<system_tasks> {
public:
    explicit system_tasks(runtime&);
    system_tasks(system_tasks const&) = delete;
    system_tasks& operator=(system_tasks const&) = delete;

    /// False: the run is over, or about to be. Errors: std::bad_alloc. The task starts with the caller's
    /// context variables.
    bool start(system_job&);

    /// By the first task, in the end: no more of them, and none is left when it returns.
    void close() noexcept;

private:
    struct member; // one that runs
    struct body;
    void leave() noexcept;

    runtime& run_of_; // there while one is counted
    std::mutex lock_;
    bool closed_ = false;        // under lock_
    std::size_t count_ = 0;      //  "
    member* first_ = nullptr;    //  "
    fiber* waiter_ = nullptr;    //  ": the first task
    std::uint64_t epoch_ = 0;    //  "
};

/// Of the current run. Errors: no_event_loop_error outside a run, naming the call.
std::shared_ptr<system_tasks> current_system_tasks(char const* call);

} // namespace weft::detail
