#pragma once

#include <weft/runtime/exception_group.hpp>

#include <stdexcept>
#include <string>
#include <system_error>

namespace weft {

/// No value for this key. Source: AnyIO lookup errors
class lookup_error : public error {
public:
    using error::error;
};

/// A blocking-style call outside of a task. Source: AnyIO NoEventLoopError
class no_event_loop_error : public error {
public:
    using error::error;
};

/// A call into a run that has ended. Source: AnyIO RunFinishedError
class run_finished_error : public error {
public:
    using error::error;
};

/// Every task of a "sim" run waited for another one, and nothing outside could end a wait: what() draws
/// the tree of tasks with what each waited for. Thrown by run(), after the tasks were cancelled.
class deadlock_error : public error {
public:
    using error::error;
};

/// A body did not finish before its deadline; code() is ETIMEDOUT. Source: AnyIO TimeoutError
class timeout_error : public std::system_error {
public:
    explicit timeout_error(std::string const& what)
        : std::system_error(std::make_error_code(std::errc::timed_out), what) {}
};

/// The task that was waited for failed; its own exception is nested. Source: AnyIO TaskFailed
class task_failed : public error {
public:
    using error::error;
};

/// The task that was waited for was cancelled, or a body that should give a value was cut short.
/// Source: AnyIO TaskCancelled
class task_cancelled : public error {
public:
    using error::error;
};

} // namespace weft
