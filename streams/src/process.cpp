#include <weft/streams/process.hpp>

#include "pipe_calls.hpp"
#include "process_plan.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/sync/to_thread.hpp>

#include <algorithm>
#include <csignal>
#include <stdexcept>
#include <string_view>

namespace weft {

namespace {

constexpr std::string_view needs_no_quotes =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_";

std::string quoted(std::string const& word) {
    if (!word.empty() && word.find_first_not_of(needs_no_quotes) == std::string::npos) return word;
    std::string result = "'";
    for (char const each : word)
        if (each == '\'')
            result += "'\\''";
        else
            result += each;
    return result + "'";
}

std::string describe_failure(completed_process const& how) {
    std::string const what = "the command " + how.args.to_string();
    if (how.returncode < 0) return what + " was ended by " + detail::signal_name(-how.returncode);
    return what + " ended with exit status " + std::to_string(how.returncode);
}

void feed(byte_send_stream& to, bytes const& input) {
    try {
        to.send(input);
    } catch (broken_resource_error const&) { // it does not want the rest (SP11)
    }
    to.close();
}

void collect(byte_receive_stream& from, std::optional<bytes>& into) {
    constexpr std::size_t most_room = 1 << 20;
    bytes& data = into.emplace();
    for (std::size_t used = 0;;) {
        // In the place where it stays; twice as much each time, and never much more than needed.
        data.resize(used + std::clamp(used, byte_receive_stream::default_chunk, most_room));
        std::size_t const count = from.receive_some(as_buffer(data).subspan(used));
        used += count;
        if (count != 0) continue;
        data.resize(used);
        return;
    }
}

} // namespace

std::string command::to_string() const {
    if (shell_) return quoted(words_.front());
    std::string result;
    for (std::string const& word : words_)
        result += (result.empty() ? "" : " ") + quoted(word);
    return result;
}

called_process_error::called_process_error(completed_process how)
    : error(describe_failure(how)),
      how_(std::make_shared<completed_process const>(std::move(how))) {}

struct process::state {
    std::unique_ptr<detail::child_process> child;
    duration grace;
    // Closed before the child is killed.
    std::optional<pipe_send_stream> to_stdin = {};
    std::optional<pipe_receive_stream> from_stdout = {};
    std::optional<pipe_receive_stream> from_stderr = {};

    void close_streams() {
        if (to_stdin) to_stdin->close();
        if (from_stdout) from_stdout->close();
        if (from_stderr) from_stderr->close();
    }
    void end() { // as a cancelled close() does
        close_streams();
        child->end(grace);
    }
};

process::process(std::shared_ptr<state> fresh) : state_(std::move(fresh)) {}
process::process(process&&) noexcept = default;
process& process::operator=(process&& other) noexcept {
    if (this == &other) return *this;
    drop();
    state_ = std::move(other.state_);
    return *this;
}
process::~process() { drop(); }

// The last owner's end closes the streams and kills. Those that wait, or have waited a moment ago, are
// owners, too: they are told by the end, and the streams stay as long.
void process::drop() noexcept {
    if (state_.use_count() > 1) state_->child->kill();
    state_.reset();
}

process::state& process::open() const {
    if (state_ == nullptr) throw closed_resource_error("the process was moved from");
    return *state_;
}

int process::pid() const { return open().child->pid(); }
std::optional<int> process::returncode() const { return open().child->exit_code(); }
int process::wait() {
    open();
    auto const keep = state_; // somebody else may destroy this meanwhile
    return keep->child->wait();
}
void process::send_signal(int number) { open().child->send_signal(number); }
void process::terminate() { send_signal(SIGTERM); }
void process::kill() { send_signal(SIGKILL); }
byte_send_stream* process::stdin_stream() const {
    auto& stream = open().to_stdin;
    return stream ? &*stream : nullptr;
}
byte_receive_stream* process::stdout_stream() const {
    auto& stream = open().from_stdout;
    return stream ? &*stream : nullptr;
}
byte_receive_stream* process::stderr_stream() const {
    auto& stream = open().from_stderr;
    return stream ? &*stream : nullptr;
}

// Closing our ends also frees a child that is stuck on a full pipe.
void process::close() {
    auto const keep = state_; // who is woken by it may destroy this
    if (keep == nullptr) return;
    keep->close_streams();
    try {
        keep->child->wait();
    } catch (...) { // cancelled
        keep->end();
        throw;
    }
}

process open_process(command what, process_options options) {
    detail::check_cancellation("open_process");
    if (options.input)
        throw std::invalid_argument("`input` is for run_process(): open_process() gives a stream");
    detail::prepared_process made = detail::prepare_process(
        what, options, options.stdin_.value_or(standard_stream(stdio::pipe)));
    if (options.user || options.group || options.extra_groups)
        to_thread::run_sync([&] { detail::resolve_accounts(made.plan, options); });
    auto fresh =
        std::make_shared<process::state>(detail::start_child(made.plan), options.grace_period);
    for (unique_fd& each : made.theirs)
        each.reset();
    if (made.ours[0]) fresh->to_stdin = detail::pipe_maker::sending(std::move(made.ours[0]));
    if (made.ours[1]) fresh->from_stdout = detail::pipe_maker::receiving(std::move(made.ours[1]));
    if (made.ours[2]) fresh->from_stderr = detail::pipe_maker::receiving(std::move(made.ours[2]));
    return process(std::move(fresh));
}

completed_process run_process(command what, process_options options) {
    if (options.input && options.stdin_)
        throw std::invalid_argument("only one of `stdin_` and `input` is allowed");
    std::optional<bytes> const input = std::exchange(options.input, {});
    if (!options.stdin_) options.stdin_ = input ? stdio::pipe : stdio::devnull;
    bool const closes_input = !input && options.stdin_->kind() == stdio::pipe;
    bool const check = options.check;
    detail::require_fiber("run_process");
    completed_process result{.args = what};
    process child = open_process(std::move(what), std::move(options));
    if (closes_input) child.stdin_stream()->close(); // nobody has anything to say
    try {
        with_task_group([&](task_group& group) {
            if (input) group.start_soon([&] { feed(*child.stdin_stream(), *input); });
            if (auto* const from = child.stdout_stream())
                group.start_soon([&, from] { collect(*from, result.stdout_data); });
            if (auto* const from = child.stderr_stream())
                group.start_soon([&, from] { collect(*from, result.stderr_data); });
            result.returncode = child.wait();
        });
    } catch (...) { // cancelled, or out of memory
        child.state_->end();
        throw;
    }
    child.close();
    if (check && result.returncode != 0) throw called_process_error(std::move(result));
    return result;
}

} // namespace weft
