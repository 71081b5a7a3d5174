#pragma once

#include <weft/io/descriptor.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/mutex.hpp>

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace weft::detail {

/// What a child is to be. Names are resolved: what is left is done by system calls alone.
struct child_plan {
    std::vector<std::string> arguments = {};  ///< argv, not empty
    std::vector<std::string> candidates = {}; ///< files to execute: the first one that can be
    std::optional<std::vector<std::string>> environment = {}; ///< "NAME=value"; none: the parent's
    std::array<int, 3> streams{-1, -1, -1}; ///< become 0, 1 and 2; -1: the parent's
    std::vector<int> kept = {}; ///< stay open under their numbers; all others are closed
    std::string directory = {}; ///< empty: the parent's
    std::optional<::uid_t> user = {};
    std::optional<::gid_t> group = {};
    std::optional<std::vector<::gid_t>> groups = {};
    int umask = -1; ///< -1: the parent's
    bool new_session = false;
    bool new_group = false; ///< leads a process group of its own
};

/// What a shell would execute for this name: the name itself if it has a slash, else in each
/// directory of the search path ("PATH").
std::vector<std::string> executables_for(std::string_view name, std::string_view search_path);

/// A child of this process, known by its pidfd, so that its number is never confused with that of
/// another process. No handler of SIGCHLD, and no wait for any other child.
///
/// Threads       exit_code() and the signals any; wait() and end() any number of tasks
/// Destruction   kills the child, with its group, unless it has ended, and has it reaped by the run
class child_process {
public:
    /// Starts it without copying this process; returns when it executes its program. Blocks: for
    /// threads. Errors: std::system_error naming what failed; nothing is left of the child
    static std::unique_ptr<child_process> start(child_plan const&);

    child_process(::pid_t, unique_fd pidfd, bool leads_group);
    child_process(child_process const&) = delete;
    child_process& operator=(child_process const&) = delete;
    ~child_process();

    int pid() const noexcept { return pid_; }

    /// None while it runs; minus the signal if that killed it. Reaps it. 255 if somebody else has
    /// taken its status away.
    std::optional<int> exit_code() noexcept;

    /// Until it has ended. Cancellation: a cancellation point; nothing is left behind
    int wait();
    /// The same for threads: blocks.
    int wait_blocking() noexcept;

    /// No error if it has ended. Errors: std::invalid_argument (no signal's number);
    /// std::system_error (EPERM)
    void send_signal(int number);
    /// To it, and to its whole process group if it leads one.
    void signal_group(int number) noexcept;
    /// Kills it, with its group, unless it has ended. Waits for nothing.
    void kill() noexcept;

    /// Ends it and its group: SIGTERM, and SIGKILL for what is left when the grace is over. Reaps
    /// it. Cancellation: none, it is shielded
    void end(duration grace);

private:
    void reap(int options) noexcept;
    bool group_has_members() const noexcept;
    bool group_lives() noexcept; // after the leader's end
    void wait_for_group();

    ::pid_t const pid_;
    bool const leads_group_;
    int const number_; // of the pidfd, while this object lives
    open_descriptor pidfd_;
    std::mutex reaping_;
    std::optional<int> code_;     // under reaping_
    bool group_may_live_ = false; //  ": its leader is reaped, others were left
    mutex turn_;                  // one task at a time waits for the pidfd
};

/// Starts a child from a task: in a thread, a few at a time. Cancellation: a cancellation point on
/// entry; afterwards it is started first
std::unique_ptr<child_process> start_child(child_plan const&);

/// Of the threads that start children, one for each run. Errors: no_event_loop_error
capacity_limiter& child_start_limiter();

/// "SIGTERM" for 15. For messages.
std::string signal_name(int number);

/// What is wrong with a signal's number, unless it is one: std::invalid_argument.
void check_signal_number(int number);

} // namespace weft::detail
