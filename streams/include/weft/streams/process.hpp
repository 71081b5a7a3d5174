#pragma once

#include <weft/io/resource.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/byte_stream.hpp>
#include <weft/streams/error.hpp>

#include <chrono>
#include <concepts>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace weft {

/// What is executed: a string is given to the shell ("/bin/sh -c"), a list is a program, looked for
/// in PATH, and its arguments, which nobody interprets. Source: AnyIO open_process(command)
class command {
public:
    command(char const* for_shell) : command(std::string(for_shell)) {}
    command(std::string for_shell) : words_{std::move(for_shell)}, shell_(true) {}
    command(std::initializer_list<std::string> words) : words_(words) {}
    command(std::vector<std::string> words) : words_(std::move(words)) {}

    bool is_for_shell() const { return shell_; }
    std::vector<std::string> const& words() const { return words_; } ///< or the one string
    bool empty() const { return words_.empty(); }
    std::string to_string() const; ///< for messages: the words quoted as a shell would read them

    friend bool operator==(command const&, command const&) = default;

private:
    std::vector<std::string> words_;
    bool shell_ = false;
};

/// Where a standard stream of a process leads to: a stream in this process, nowhere, the same as
/// here, or, for stderr only, where its stdout leads to.
enum class stdio : unsigned char { pipe, devnull, inherit, standard_output };

/// One of these, or a descriptor, which stays the caller's.
class standard_stream {
public:
    constexpr standard_stream(stdio kind) : kind_(kind) {}
    constexpr standard_stream(int fd) : fd_(fd) {}
    /// A file, or whatever has a fileno(). Nobody looks at its buffers: flush() what was written
    /// to it before, and what was read ahead of it the process does not get.
    template <class File>
    requires requires(File const& file) {
        { file.fileno() } -> std::convertible_to<int>;
    }
    standard_stream(File const& file) : standard_stream(int(file.fileno())) {}

    constexpr std::optional<stdio> kind() const { return kind_; } ///< none: a descriptor
    constexpr int fd() const { return fd_; }

private:
    std::optional<stdio> kind_;
    int fd_ = -1;
};

/// A user or a group, by number or by name.
class account {
public:
    template <std::integral Number> account(Number id) : id_(static_cast<long long>(id)) {}
    account(char const* name) : id_(std::string(name)) {}
    account(std::string name) : id_(std::move(name)) {}

    std::variant<long long, std::string> const& id() const { return id_; }

private:
    std::variant<long long, std::string> id_;
};

/// How a process is started, and what run_process() does with it.
///
/// A child is well-behaved whatever this program does to itself: it starts with no blocked signals,
/// SIGPIPE ends it, and of the descriptors it has only its standard streams and `pass_fds`.
struct process_options {
    /// run_process() only: what the process reads from its standard input. Empty: it reads the end.
    std::optional<bytes> input = {};
    /// Not given: a pipe for open_process(), nothing to read (stdio::devnull) for run_process().
    std::optional<standard_stream> stdin_ = {};
    standard_stream stdout_ = stdio::pipe;
    standard_stream stderr_ = stdio::pipe;
    /// run_process() only: an exit status that is not 0 is a called_process_error.
    bool check = true;
    std::optional<std::filesystem::path> cwd = {};
    /// The whole environment, where the program is looked for included; not given: this process's.
    std::optional<std::map<std::string, std::string>> env = {};
    bool start_new_session = false; ///< setsid(2)
    std::vector<int> pass_fds = {}; ///< stay open under their numbers
    std::optional<account> user = {};
    std::optional<account> group = {};
    std::optional<std::vector<account>> extra_groups = {}; ///< an empty list: none at all
    int umask = -1;                                        ///< -1: this process's

    /// Leads a process group of its own, so that what it starts ends with it when it is cancelled.
    /// Such a group does not hear the terminal's Ctrl-C. Not for one whose standard input is a
    /// terminal: it could not read from it.
    bool new_process_group = true;
    /// How long a process that is cancelled has between SIGTERM and SIGKILL. Zero: SIGKILL at once.
    duration grace_period = std::chrono::seconds(2);
};

/// How a process ended. Without a pipe there are no data.
struct completed_process {
    command args{std::initializer_list<std::string>{}};
    int returncode = 0; ///< minus the signal if that killed it
    std::optional<bytes> stdout_data = {};
    std::optional<bytes> stderr_data = {};
};

/// run_process() with `check`: the exit status was not 0. Source: Python CalledProcessError
class called_process_error : public error {
public:
    explicit called_process_error(completed_process how);

    int returncode() const { return how_->returncode; }
    command const& args() const { return how_->args; }
    std::optional<bytes> const& stdout_data() const { return how_->stdout_data; }
    std::optional<bytes> const& stderr_data() const { return how_->stderr_data; }

private:
    std::shared_ptr<completed_process const> how_; // an exception's copies do not throw
};

/// A process that this one started.
///
/// One that can be neither ended nor killed (the kernel waits for a device) makes wait() and
/// close() wait, whoever cancels them.
///
/// Threads       pid(), returncode() and the signals any; wait() any number of tasks
/// Cancellation  wait() is a cancellation point and leaves nothing behind; the process runs on.
///               close(), cancelled, ends the process and its group: SIGTERM, after the grace
///               period SIGKILL; it is reaped before the cancellation goes on
/// Destruction   closes the streams and kills the process and its group (SIGKILL) unless it has
///               ended; run() does not return before it is reaped. Who is in wait() or close() hears
///               of that end
/// Source        AnyIO Process
class process final : public resource {
public:
    process(process&&) noexcept;
    process& operator=(process&&) noexcept;
    ~process() override;

    int pid() const;
    /// None while it runs; minus the signal if that killed it. Does not wait. 255, and a line on
    /// stderr, if other code in this program took its status by waiting for any child.
    std::optional<int> returncode() const;
    /// Until it has ended, whoever else holds its pipes. Gives the returncode.
    int wait();

    /// To the process itself, and never to another one: nothing happens once it has ended. Errors:
    /// std::invalid_argument (no signal's number); std::system_error (not permitted)
    void send_signal(int number);
    void terminate(); ///< SIGTERM
    void kill();      ///< SIGKILL

    /// Null where the standard stream is no pipe.
    byte_send_stream* stdin_stream() const;
    byte_receive_stream* stdout_stream() const;
    byte_receive_stream* stderr_stream() const;

    /// Closes the streams, then waits for the end: it does not ask the process to end.
    void close() override;

private:
    struct state;
    friend process open_process(command, process_options);
    friend completed_process run_process(command, process_options);
    explicit process(std::shared_ptr<state>);
    state& open() const;
    void drop() noexcept;

    std::shared_ptr<state> state_; // who waits keeps it
};

/// Starts a process, without a copy of this one. `input` and `check` are for run_process().
///
/// Cancellation  a cancellation point on entry; no process was started
/// Errors        std::system_error (ENOENT, EACCES, ... naming the program or the directory);
///               std::invalid_argument (no command, a NUL in it, no such user, `input`)
/// Source        AnyIO open_process
process open_process(command, process_options = {});

/// Starts a process, feeds it its input, collects what it writes to pipes, and waits for its end. A
/// process that leaves some input unread is no error.
///
/// Cancellation  a cancellation point; the process and its group are ended as by process::close(),
///               and reaped; what it had done is unknown
/// Errors        called_process_error; those of open_process(); std::invalid_argument (`input` and
///               `stdin_`)
/// Source        AnyIO run_process
completed_process run_process(command, process_options = {});

} // namespace weft
