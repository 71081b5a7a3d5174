#pragma once

namespace weft {

namespace detail {
class runtime;
struct fiber;
struct worker;

/// Whether the calling thread is in a blocking_region and has kept a worker of that run: to wait there for
/// what a task of the run is to do would be to wait for ever.
bool is_kept_by_region(runtime const*) noexcept;
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
/// blocks its worker after all; other workers still take over what is ready there, and nobody is told that
/// it stalls. Nor can it wait there for what only that worker could run: under "sim" that is any task of the run,
/// whose future never comes. A call of a portal of its run is refused there (std::logic_error),
/// unless it comes from another thread of a run() that was called inside.
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
    friend bool detail::is_kept_by_region(detail::runtime const*) noexcept;
    static bool keeps_worker_of(detail::runtime const*) noexcept;
    void step_out(detail::worker&) noexcept;
    void hand_over(detail::worker&, detail::fiber&);

    detail::fiber* task_ = nullptr;
    detail::worker* own_worker_ = nullptr; // null: it was given away
    void* scheduler_context_ = nullptr;    // of this thread: where it left the worker that was given away
    detail::fiber* outer_task_ = nullptr;  // if run() was called inside another one
    blocking_region const* outer_ = nullptr; // the next one on this thread that keeps a worker
};

} // namespace weft
