#pragma once

namespace weft::detail {

/// Whether this process was made by fork() while a run was under way. Of the run's threads only the
/// one that called fork() is here, and locks of the others may be held for ever: such a process may
/// call exec or _exit, and nothing of weft.
bool is_forked_child() noexcept;

/// There: run_finished_error that names the call and says so. For calls that would wait for a run, on their way
/// to something slow, and for those that take a lock and are not hot.
void refuse_in_forked_child(char const* call);

/// Notes down from here on when a run is copied by fork(). Once a process.
void watch_for_forks();

} // namespace weft::detail
