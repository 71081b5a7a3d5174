#pragma once

#include <weft/runtime/time.hpp>

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

namespace weft {

enum class task_state : std::uint8_t { ready, running, waiting, finished };

/// What is known of a task at one moment. A value; it outlives the task. Source: AnyIO TaskInfo
struct task_info {
    std::uint64_t id = 0;                   ///< unique as long as the task lives
    std::optional<std::uint64_t> parent_id; ///< the host of its group; none for the first task
    std::string name;
    task_state state = task_state::finished;
    std::string waiting_on;            ///< the call it waits in; empty if it does not wait
    bool pending_cancellation = false; ///< its next cancellation point throws; where a deadline has passed only
                                       ///< some milliseconds ago, the next that waits or lets others run
    std::size_t stack_size = 0;        ///< bytes of address space, guard included
    duration waited{};                 ///< for how long, to some milliseconds; zero if it does not wait

    friend bool operator==(task_info const& left, task_info const& right) {
        return left.id == right.id;
    }
};

/// The calling task. Errors: no_event_loop_error outside a task. Source: AnyIO get_current_task
task_info get_current_task();

/// Every unfinished task of the current run; from an OS thread, those of every run of the process. Any
/// thread. Source: AnyIO get_running_tasks
std::vector<task_info> get_running_tasks();

/// Waits until every other task waits for something, timers, threads and descriptors included; tasks
/// that wait in this very call count as waiting. Under "sim" it returns before the clock jumps.
///
/// Cancellation  a cancellation point; nothing is left behind
/// Errors        no_event_loop_error outside a task
/// Source        AnyIO wait_all_tasks_blocked
void wait_all_tasks_blocked();

/// Writes the tree of tasks: name, state, what each waits for and for how long, where it was spawned, and
/// the stack of each that waits and of the caller; one stack that several have in common is written once.
/// Of the current run; from an OS thread, of every run of the process.
///
/// Tasks run on meanwhile; one whose stack is just looked at is held for the microseconds that it takes.
/// Functions are named if the linker kept them (-rdynamic); else there is an offset for addr2line. Stacks
/// are shown on x86-64 only.
///
/// Threads  any
void dump_tasks(std::ostream&);

/// What one worker did since the run began.
struct worker_statistics {
    std::uint64_t switches = 0; ///< times it began or resumed a task
    std::uint64_t spawned = 0;  ///< tasks started from it
    std::uint64_t steals = 0;   ///< times it took work from another worker
    std::uint64_t sleeps = 0;   ///< times it found nothing anywhere and slept
    std::uint64_t polls = 0;    ///< looks at the kernel's events between tasks
    std::uint64_t events = 0;   ///< events that it turned into runnable tasks
};

/// What the workers of the current run did, and how stacks are kept.
struct run_statistics {
    std::vector<worker_statistics> workers;
    std::size_t stacks_in_use = 0; ///< of the process, those kept ready included
    std::string stack_guards;      ///< how stacks are guarded, chosen once for the process
};

/// A snapshot. Any task or worker of the run. Errors: no_event_loop_error outside a run.
run_statistics get_run_statistics();

} // namespace weft
