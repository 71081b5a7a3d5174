#pragma once

namespace weft {

namespace detail {
struct fiber;
struct stack;
}

/// While one exists, the task may block its thread: another thread has taken over the worker, with its
/// ready tasks, timers and descriptors. For a stretch of old code in the middle of a task; a whole
/// function is better called with to_thread::run_sync, which has a limiter.
///
///     blocking_region region;
///     ::flock(file, LOCK_EX);
///
/// Inside, the task is outside of its run: what needs a task throws no_event_loop_error, what any thread
/// may call works. Its context variables come along. Leaving suspends, and the task goes on on any worker.
/// wait_all_tasks_blocked() counts it as blocked, as it does who waits for a worker thread.
///
/// Where the thread has to stay with the worker, since tasks are pinned to it, and under "sim", the task
/// blocks its worker after all; other workers still take over what is ready there.
///
/// Threads       created and destroyed by the same task
/// Cancellation  neither entering nor leaving is a cancellation point
/// Errors        no_event_loop_error outside of a task; std::system_error if there can be no thread.
///               Left in a child of fork(), it ends that process and says why
class [[nodiscard]] blocking_region {
public:
    blocking_region();
    ~blocking_region();
    blocking_region(blocking_region const&) = delete;
    blocking_region& operator=(blocking_region const&) = delete;

private:
    detail::fiber* task_ = nullptr;     // null: the worker was not given away
    void* scheduler_context_ = nullptr; // of this thread: where it left the worker's loop
    detail::stack* outer_stack_ = nullptr; // if run() was called inside another one
};

} // namespace weft
