#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace weft {

/// While one exists, a call of this task that would suspend ends the process and names the call. For
/// stretches that hold a std::mutex or a reference to a thread_local.
///
/// Threads  created and destroyed by the same task. Errors: no_event_loop_error, std::length_error (65,535
///          of them are open)
class [[nodiscard]] no_suspend {
public:
    no_suspend();
    ~no_suspend();
    no_suspend(no_suspend const&) = delete;
    no_suspend& operator=(no_suspend const&) = delete;
};

/// While one exists, the task stays on its worker. For libraries that keep state per thread.
///
/// Threads  created and destroyed by the same task. Errors: no_event_loop_error
class [[nodiscard]] no_migrate {
public:
    no_migrate();
    ~no_migrate();
    no_migrate(no_migrate const&) = delete;
    no_migrate& operator=(no_migrate const&) = delete;

private:
    bool outermost_;
};

/// What the calling task knows of itself. Errors: no_event_loop_error outside a task.
namespace this_task {
std::size_t stack_remaining(); ///< bytes until the guard
std::uint64_t id();
std::string name();
} // namespace this_task

} // namespace weft
