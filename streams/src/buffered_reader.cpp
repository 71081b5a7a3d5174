#include <weft/streams/detail/buffered_reader.hpp>

#include <weft/runtime/detail/parking.hpp>

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>

namespace weft::detail {

namespace {

constexpr std::size_t chunk = 65536;    // asked for at a time, when it is not known how much comes
constexpr std::size_t kept = 4 * chunk; // of memory, while nothing is in it
constexpr std::size_t nowhere = bytes::npos;

// Where the delimiter begins, from the given place on. A place behind the last possible one is
// fine.
std::size_t search(bytes_view in, bytes_view delimiter, std::size_t from) {
    if (from >= in.size()) return nowhere;
    std::byte const* const start = in.data() + from;
    void const* const found =
        delimiter.size() == 1
            ? std::memchr(start, std::to_integer<int>(*delimiter.data()), in.size() - from)
            : ::memmem(start, in.size() - from, delimiter.data(), delimiter.size());
    if (found == nullptr) return nowhere;
    return std::size_t(static_cast<std::byte const*>(found) - in.data());
}

[[noreturn]] void throw_incomplete() {
    try {
        throw end_of_stream();
    } catch (end_of_stream const&) { // the cause
        std::throw_with_nested(incomplete_read());
    }
}

} // namespace

resource_guard::entry buffered_reader::enter(char const* call) {
    if (!reading_) throw closed_resource_error();
    resource_guard::entry entry = reading_->enter();
    enter_blocking_call(call);
    return entry;
}

// False: the stream has ended.
bool buffered_reader::receive_more(byte_receive_stream& from, std::size_t wanted) {
    if (read_ahead_) wanted = std::max(wanted, chunk);
    std::size_t const count = from.receive_some(queue_.room(wanted).first(wanted));
    queue_.grew(count);
    return count != 0;
}

std::size_t buffered_reader::receive_some(byte_receive_stream& from, weft::buffer target) {
    if (target.empty()) throw std::invalid_argument("there is no room in the buffer");
    auto const inside = enter("buffered receive");
    if (queue_.empty()) {
        if (!read_ahead_) return from.receive_some(target);
        if (!receive_more(from, chunk)) return 0;
    }
    std::size_t const count = queue_.take(target);
    queue_.shrink(kept);
    return count;
}

bytes buffered_reader::receive_exactly(byte_receive_stream& from, std::size_t count) {
    auto const inside = enter("buffered receive_exactly");
    while (queue_.size() < count) {
        // A length that a peer made up costs memory only as far as it is filled.
        std::size_t const wanted = std::min(count - queue_.size(), std::max(chunk, queue_.size()));
        if (!receive_more(from, wanted)) throw_incomplete();
    }
    bytes result = queue_.take(count);
    queue_.shrink(kept);
    return result;
}

bytes buffered_reader::receive_until(byte_receive_stream& from, bytes_view delimiter,
                                     std::size_t max_bytes) {
    auto const inside = enter("buffered receive_until");
    std::size_t const length = find(from, delimiter, max_bytes);
    bytes result(queue_.view().text().substr(0, length));
    queue_.consume(length + delimiter.size());
    queue_.shrink(kept);
    return result;
}

void buffered_reader::receive_until(byte_receive_stream& from, bytes& into, bytes_view delimiter,
                                    std::size_t max_bytes) {
    auto const inside = enter("buffered receive_until");
    std::size_t const length = find(from, delimiter, max_bytes);
    into.assign(queue_.view().text(), 0, length);
    queue_.consume(length + delimiter.size());
    queue_.shrink(kept);
}

// Nothing is looked at twice, but for what could be the delimiter's beginning.
std::size_t buffered_reader::find(byte_receive_stream& from, bytes_view delimiter,
                                  std::size_t max_bytes) {
    if (delimiter.empty()) throw std::invalid_argument("the delimiter is empty");
    std::size_t next = 0;
    for (;;) {
        std::size_t const found = search(queue_.view(), delimiter, next);
        if (found != nowhere) return found;
        if (queue_.size() >= max_bytes) throw delimiter_not_found(max_bytes);
        next = queue_.size() - std::min(queue_.size(), delimiter.size() - 1);
        if (!receive_more(from, chunk)) throw_incomplete();
    }
}

void buffered_reader::close(resource& wrapped) {
    if (!reading_) return;
    reading_->close();
    wrapped.close();
}

} // namespace weft::detail
