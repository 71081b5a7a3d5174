#include <weft/io/file.hpp>

#include "file_state.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/sync/to_thread.hpp>

#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>

namespace weft {

namespace {

using detail::file_state;
using detail::no_limit;
using wait = file_state::wait;

enum class kind : bool { looks, changes }; // what only looks waits for nothing in a file in memory

// A file's turn. `call`: what an error outside of a run names.
class turn_of {
public:
    turn_of(file_state& state, char const* call) : held_(take(state, call)) {}

private:
    static std::unique_lock<mutex> take(file_state& state, char const* call) {
        try {
            return std::unique_lock(state.turn);
        } catch (no_event_loop_error const&) { // names the mutex
            detail::require_fiber(call);
            throw;
        }
    }
    std::unique_lock<mutex> held_;
};

// One operation after the other (AF8): here as far as nothing has to be waited for, else in a
// thread.
template <class Check, class Operation>
auto perform(file_state& state, Check check, Operation operation, kind what,
             char const* call = __builtin_FUNCTION()) {
    turn_of const turn(state, call);
    state.require_open();
    check();
    bool const in_memory = what == kind::looks && state.device->in_memory();
    if (auto done = operation(in_memory ? wait::yes : wait::no)) return *std::move(done);
    return *to_thread::run_sync(to_thread::options{.limiter = state.format.limiter},
                                [&operation] { return operation(wait::yes); });
}

template <class Operation>
auto perform_read(file_state& state, Operation operation, char const* call = __builtin_FUNCTION()) {
    return perform(
        state, [&state] { state.require_readable(); }, std::move(operation), kind::looks, call);
}

template <class Operation>
auto perform_binary_read(file_state& state, char const* call, Operation operation) {
    return perform(
        state,
        [&state, call] {
            state.require_readable();
            state.require_binary(call);
        },
        std::move(operation), kind::looks, call);
}

std::size_t limit_of(std::ptrdiff_t size) { return size < 0 ? no_limit : std::size_t(size); }

} // namespace

file::file(std::unique_ptr<detail::file_state> state) noexcept : state_(std::move(state)) {}
file::file(file&&) noexcept = default;
file& file::operator=(file&&) noexcept = default;
file::~file() = default;

detail::file_state& file::state() const {
    if (!state_) throw std::invalid_argument("I/O operation on a file that was moved from");
    return *state_;
}

bytes file::read(std::ptrdiff_t size) {
    file_state& from = state();
    return perform_read(from, [&from, most = limit_of(size)](wait how) {
        return from.format.text ? from.read_characters({most}, how) : from.read(most, how);
    });
}

bytes file::read1(std::ptrdiff_t size) {
    file_state& from = state();
    std::optional<std::size_t> const most = size < 0 ? std::nullopt : std::optional(limit_of(size));
    return perform_binary_read(from, "read1",
                               [&from, most](wait how) { return from.read1(most, how); });
}

std::string file::readline(std::ptrdiff_t size) {
    file_state& from = state();
    return perform_read(
        from, [&from, most = limit_of(size)](wait how) { return from.read_line(most, how); });
}

std::vector<std::string> file::readlines() {
    std::vector<std::string> lines;
    for (std::string& line : *this)
        lines.push_back(std::move(line));
    return lines;
}

std::size_t file::readinto(buffer target) {
    file_state& from = state();
    return perform_binary_read(from, "readinto",
                               [&](wait how) { return from.readinto(target, how); });
}

std::size_t file::readinto1(buffer target) {
    file_state& from = state();
    return perform_binary_read(from, "readinto1",
                               [&](wait how) { return from.readinto1(target, how); });
}

std::size_t file::write(bytes_view data) {
    file_state& to = state();
    std::string encoded;
    std::string_view octets = data.text();
    std::size_t count = octets.size();
    if (to.format.text) {
        encoded = detail::written_text(*to.format.text, octets, count);
        octets = encoded;
    }
    bool const flush =
        to.format.flushes_lines && octets.find_first_of("\r\n") != std::string_view::npos;
    perform(
        to,
        [&] {
            to.require_writable();
            to.device->require_acceptable(octets);
        },
        [&](wait how) { return to.write(octets, flush, how); }, kind::changes);
    return count;
}

std::uint64_t file::truncate(std::optional<std::uint64_t> size) {
    file_state& cut = state();
    return perform(
        cut, [&cut] { cut.require_writable(); }, [&](wait how) { return cut.truncate(size, how); },
        kind::changes);
}

std::uint64_t file::seek(std::int64_t offset, int whence) {
    file_state& moved = state();
    return perform(
        moved, [] {}, [&](wait how) { return moved.seek(offset, whence, how); }, kind::looks);
}

std::uint64_t file::tell() {
    file_state& asked = state();
    return perform(
        asked, [] {}, [&](wait how) { return asked.tell(how); }, kind::looks);
}

void file::flush() {
    file_state& flushed = state();
    perform(
        flushed, [] {}, [&](wait how) { return flushed.flush(how); }, kind::changes);
}

// Whatever happens it is closed: what was reported as written must not be lost to a cancellation. Without a
// thread that is done here: to hold up a worker is better than to leave the file open.
void file::close() {
    if (!state_) return;
    detail::require_fiber("close");
    shielded([this] {
        std::lock_guard const turn(state_->turn);
        if (state_->closed) return;
        try {
            to_thread::run_sync(to_thread::options{.limiter = state_->format.limiter},
                                [this] { state_->close(); });
        } catch (std::exception const&) { // of the close itself, or there is no thread for it
            if (state_->closed) throw;
            state_->close();
        }
    });
    lowlevel::checkpoint_if_cancelled();
}

int file::fileno() const {
    state().require_open();
    int const fd = state().device->fd();
    if (fd < 0)
        throw std::system_error(std::make_error_code(std::errc::operation_not_supported),
                                state().label() + " has no descriptor");
    return fd;
}

bool file::closed() const noexcept { return !state_ || state_->closed; }

bool file::readable() const {
    state().require_open();
    return state().format.readable;
}

bool file::writable() const {
    state().require_open();
    return state().format.writable;
}

bool file::seekable() const {
    state().require_open();
    return state().device->seekable();
}

bool file::is_text() const { return state().format.text.has_value(); }

std::string const& file::mode() const { return state().format.mode; }

std::optional<path> const& file::opened_path() const { return state().format.name; }

capacity_limiter* file::limiter() const { return state().format.limiter; }

std::FILE* file::wrapped() const {
    state().require_open();
    return state().device->stream();
}

} // namespace weft
