#include "file_state.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weft::detail {

namespace {

constexpr std::size_t chunk = 16384;                     // read at once for those who want less
constexpr std::size_t large = 1 << 20;                   // by those who want it all; not kept
constexpr std::size_t page = 4096;                       // the same, right after a seek
constexpr std::int64_t farthest = std::int64_t(1) << 62; // two such distances can be added
constexpr std::size_t at_once = 65536; // one operation copies no more than that on a worker

[[noreturn]] void refuse_operation(std::string const& what) {
    throw std::system_error(std::make_error_code(std::errc::operation_not_supported), what);
}

} // namespace

bool read_ahead::move(std::int64_t distance) {
    if (distance > std::int64_t(size()) || distance < -std::int64_t(begin_)) return false;
    begin_ = std::size_t(std::int64_t(begin_) + distance);
    return true;
}

void read_ahead::take(std::size_t count) {
    begin_ += count;
    if (size() == 0 && capacity_ > large) give_up_space();
}

void read_ahead::give_up_space() noexcept {
    space_.reset();
    kept_ = std::string();
    place_ = nullptr;
    capacity_ = begin_ = end_ = 0;
}

void read_ahead::keep(std::string octets) noexcept {
    give_up_space();
    kept_ = std::move(octets);
    place_ = kept_.data();
    capacity_ = end_ = kept_.size();
}

buffer read_ahead::room(std::size_t count) {
    if (size() == 0) clear();
    if (capacity_ - end_ < count) {
        std::size_t const stays = size();
        std::size_t const needed = std::max(stays + count, 2 * stays);
        std::unique_ptr<char[]> larger;
        if (needed > capacity_) larger = std::make_unique_for_overwrite<char[]>(needed);
        char* const target = larger ? larger.get() : place_;
        if (stays > 0) std::memmove(target, place_ + begin_, stays);
        if (larger) {
            give_up_space();
            space_ = std::move(larger);
            place_ = space_.get();
            capacity_ = needed;
        }
        begin_ = 0;
        end_ = stays;
    }
    return {reinterpret_cast<std::byte*>(place_ + end_), count};
}

file_state::file_state(std::unique_ptr<file_device> opened, file_format how)
    : format(std::move(how)), device(std::move(opened)) {}

file_state::~file_state() {
    if (closed) return;
    try {
        write_out();
        if (device->lent() && device->seekable()) drop_ahead(wait::yes);
    } catch (std::exception const&) { // nobody can be told: close() tells
    }
}

void file_state::require_open() const {
    if (closed) throw std::invalid_argument("I/O operation on closed file " + label());
}

void file_state::require_readable() const {
    if (!format.readable) refuse_operation(label() + " is not readable");
}

void file_state::require_writable() const {
    if (!format.writable) refuse_operation(label() + " is not writable");
}

void file_state::require_binary(char const* call) const {
    if (format.text) refuse_operation(std::string(call) + "() of the text file " + label());
}

// -- Reading --------------------------------------------------------------------------------------

file_state::filled file_state::fill(std::size_t wanted, wait how) {
    if (!gathered_.empty()) {
        if (how == wait::no) return filled::would_wait;
        write_out();
    }
    // Who jumps about gets what he wants; who goes on, more.
    std::size_t const usual = std::exchange(jumped_, false) ? page : chunk;
    std::size_t size = format.reads_ahead ? std::max(wanted, usual) : wanted;
    if (how == wait::no) {
        size = std::min(size, at_once - std::min(at_once, read_at_once_));
        if (size == 0) return filled::would_wait;
    }
    buffer const room = ahead_.room(size);
    std::size_t count = 0;
    if (how == wait::yes) {
        count = device->read(room);
    } else {
        std::optional<std::size_t> const ready = device->read_now(room);
        if (!ready) return filled::would_wait;
        count = *ready;
        read_at_once_ += count;
    }
    ahead_.put(count);
    if (device_at_) *device_at_ += count;
    return count > 0 ? filled::more : filled::end;
}

std::optional<bytes> file_state::read(std::size_t most, wait how) {
    read_at_once_ = 0;
    if (how == wait::yes && most > large && ahead_.size() < most) return read_large(most);
    while (ahead_.size() < most) {
        std::size_t const wanted = most == no_limit ? chunk : most - ahead_.size();
        filled const what = fill(wanted, how);
        if (what == filled::would_wait) return {};
        if (what == filled::end) break;
    }
    bytes result(ahead_.view().substr(0, most));
    ahead_.take(result.size());
    return result;
}

// Into the string at once: it may be large. What was asked for may be larger than anything there is, so that
// costs memory only as far as it is filled, or the file says that it will be.
bytes file_state::read_large(std::size_t most) {
    write_out();
    bytes result(ahead_.view());
    ahead_.clear();
    std::size_t count = result.size();
    std::size_t growth = std::max<std::size_t>(device->size_hint() + 1, chunk);
    try {
        while (count < most) {
            if (count == result.size()) {
                result.resize(count + std::min(growth, most - count));
                growth = std::max(chunk, result.size());
            }
            std::size_t const got = device->read(as_buffer(result).subspan(count));
            if (device_at_) *device_at_ += got;
            if (got == 0) break;
            count += got;
        }
    } catch (...) { // what was read is for the next call
        result.resize(count); // smaller
        ahead_.keep(std::move(result));
        throw;
    }
    result.resize(count);
    return result;
}

std::optional<bytes> file_state::read1(std::optional<std::size_t> most, wait how) {
    read_at_once_ = 0;
    std::size_t wanted = most.value_or(chunk);
    if (how == wait::yes && wanted > large) // memory for what may be there
        wanted = std::min(wanted, std::max<std::size_t>(large, device->size_hint()));
    if (ahead_.size() == 0 && most != 0 && fill(wanted, how) == filled::would_wait) return {};
    bytes result(ahead_.view().substr(0, most.value_or(no_limit)));
    ahead_.take(result.size());
    return result;
}

std::optional<std::size_t> file_state::readinto(buffer target, wait how) {
    read_at_once_ = 0;
    while (how == wait::no && ahead_.size() < target.size()) {
        filled const what = fill(target.size() - ahead_.size(), how);
        if (what == filled::would_wait) return {};
        if (what == filled::end) break;
    }
    std::size_t done = std::min(ahead_.size(), target.size());
    if (done > 0) std::memcpy(target.data(), ahead_.view().data(), done);
    ahead_.take(done);
    if (how == wait::no || done == target.size()) return done;
    write_out();
    while (done < target.size()) { // past the buffer
        std::size_t const count = device->read(target.subspan(done));
        if (device_at_) *device_at_ += count;
        if (count == 0) break;
        ahead_.clear(); // what was taken is no longer right in front of the device
        done += count;
    }
    return done;
}

std::optional<std::size_t> file_state::readinto1(buffer target, wait how) {
    std::optional<bytes> const read = read1(target.size(), how);
    if (!read) return {};
    if (!read->empty()) std::memcpy(target.data(), read->data(), read->size());
    return read->size();
}

std::optional<std::string> file_state::read_characters(text_demand wanted, wait how) {
    read_at_once_ = 0;
    std::string result;
    std::size_t used = 0; // taken when all of it is there, so that an error takes nothing
    bool at_end = false;
    for (;;) {
        text_step const step =
            read_text(*format.text, ahead_.view().substr(used), at_end, wanted, result);
        used += step.used;
        wanted.characters -= step.characters;
        if (step.complete) break;
        // A whole file is not to be had in small pieces.
        bool const much = how == wait::yes && !wanted.line && wanted.characters > large;
        filled const what = fill(much ? large : chunk, how);
        if (what == filled::would_wait) return {};
        at_end = what == filled::end;
    }
    ahead_.take(used);
    return result;
}

std::optional<std::string> file_state::read_line(std::size_t most, wait how) {
    if (format.text) return read_characters({most, true}, how);
    read_at_once_ = 0;
    std::size_t searched = 0;
    std::size_t end = std::string_view::npos;
    for (;;) {
        end = ahead_.view().find('\n', searched);
        if (end != std::string_view::npos || ahead_.size() >= most) break;
        searched = ahead_.size();
        filled const what = fill(format.reads_ahead ? chunk : 1, how);
        if (what == filled::would_wait) return {};
        if (what == filled::end) break;
    }
    std::size_t const length = end == std::string_view::npos ? ahead_.size() : end + 1;
    std::string result(ahead_.view().substr(0, std::min(length, most)));
    ahead_.take(result.size());
    return result;
}

// -- Writing --------------------------------------------------------------------------------------

// What has been written is gone from the buffer also if the rest fails: the rest is tried again.
void file_state::write_out() {
    std::size_t done = 0;
    try {
        while (done < gathered_.size()) {
            std::size_t const count = device->write(std::string_view(gathered_).substr(done));
            done += count;
            note_written(count);
        }
        device->settle();
    } catch (...) {
        gathered_.erase(0, done);
        throw;
    }
    gathered_.clear();
}

// At once: what comes next may fail.
void file_state::note_written(std::size_t count) {
    if (format.at_end)
        device_at_.reset();
    else if (device_at_)
        *device_at_ += count;
}

// The device back to where reading has come to, if that is a place. False: it takes a thread.
bool file_state::drop_ahead(wait how) {
    bool const moves = ahead_.size() > 0 || device->may_be_inside();
    if (moves && !place_device(-std::int64_t(ahead_.size()), SEEK_CUR, how)) return false;
    ahead_.clear();
    return true;
}

std::optional<std::size_t> file_state::write(std::string_view data, bool flush, wait how) {
    if (device->seekable() && !drop_ahead(how)) return {};
    std::size_t const gather = device->may_gather() ? format.gather : 0;
    if (data.empty() && gathered_.empty() && device->begins_text()) flush = true;
    if (!flush && gathered_.size() + data.size() <= gather) {
        if (gathered_.capacity() == 0) gathered_.reserve(gather);
        gathered_ += data;
        return data.size();
    }
    if (how == wait::no) {
        std::optional<std::size_t> const done =
            gathered_.empty() ? device->write_now(data) : std::nullopt;
        if (done) note_written(*done);
        return done;
    }
    write_out();
    if (!flush && data.size() <= gather) {
        gathered_ = data;
        return data.size();
    }
    std::size_t done = 0;
    do {
        std::size_t const count = device->write(data.substr(done));
        done += count;
        note_written(count);
    } while (done < data.size());
    device->settle();
    return data.size();
}

std::optional<bool> file_state::flush(wait how) {
    if (how == wait::no) {
        if (!gathered_.empty() || device->owes() || device->stream() != nullptr) return {};
        return true;
    }
    write_out();
    device->flush();
    return true;
}

std::optional<std::uint64_t> file_state::truncate(std::optional<std::uint64_t> size, wait how) {
    if (how == wait::no) return {};
    write_out();
    std::uint64_t const target = size ? *size : *tell(how);
    // What cannot be read again, as it has no position, stays ahead.
    if (device->seekable() && device->has_positions()) drop_ahead(how);
    device->truncate(target);
    return target;
}

// -- Position -------------------------------------------------------------------------------------

std::optional<std::uint64_t> file_state::position() const {
    if (!device_at_) return {};
    return *device_at_ - ahead_.size() + gathered_.size();
}

std::optional<std::uint64_t> file_state::place_device(std::int64_t offset, int whence, wait how) {
    std::optional<std::uint64_t> const at =
        how == wait::yes ? device->seek(offset, whence) : device->seek_now(offset, whence);
    if (at && device->has_positions()) device_at_ = at;
    return at;
}

std::optional<std::uint64_t> file_state::seek(std::int64_t offset, int whence, wait how) {
    if (whence < SEEK_SET || whence > SEEK_HOLE)
        throw std::invalid_argument("invalid whence " + std::to_string(whence));
    if (format.text && whence != SEEK_SET && (offset != 0 || whence > SEEK_END))
        refuse_operation("a relative seek in the text file " + label());
    if (offset > farthest || offset < -farthest)
        throw std::system_error(EOVERFLOW, std::system_category(), "cannot seek in " + label());
    if (!gathered_.empty()) {
        if (how == wait::no) return {};
        write_out();
    }
    std::optional<std::uint64_t> const here = position();
    if (here && whence <= SEEK_CUR) {
        std::int64_t const from = whence == SEEK_SET ? 0 : std::int64_t(*here);
        std::int64_t const distance = offset + from - std::int64_t(*here);
        if (offset + from >= 0 && ahead_.move(distance)) return std::uint64_t(offset + from);
    }
    if (whence == SEEK_CUR) offset -= std::int64_t(ahead_.size());
    std::optional<std::uint64_t> const at = place_device(offset, whence, how);
    if (at) {
        ahead_.clear();
        jumped_ = true;
    }
    return at;
}

std::optional<std::uint64_t> file_state::tell(wait how) {
    if (!device_at_ && !device->has_positions()) return seek(0, SEEK_CUR, how); // it may refuse
    if (format.at_end && !gathered_.empty()) {
        if (how == wait::no) return {};
        write_out();
    }
    if (!device_at_ && !place_device(0, SEEK_CUR, how)) return {};
    return position();
}

void file_state::close() {
    std::exception_ptr failure;
    auto const attempt = [&failure](auto step) {
        try {
            step();
        } catch (std::exception const&) { // thrown when it is closed
            if (!failure) failure = std::current_exception();
        }
    };
    attempt([&] { write_out(); });
    if (device->lent() && device->seekable()) attempt([&] { drop_ahead(wait::yes); });
    gathered_.clear();
    closed = true;
    attempt([&] { device->close(); });
    if (failure) std::rethrow_exception(failure);
}

} // namespace weft::detail
