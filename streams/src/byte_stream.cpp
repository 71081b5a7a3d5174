#include <weft/streams/byte_stream.hpp>

#include <algorithm>
#include <stdexcept>

namespace weft {

namespace {

// Most of what is received is short; a string of the largest size asked for would be zeroed first.
constexpr std::size_t first_try = 4096;
// Whoever has no limit asks for SIZE_MAX; no stream has more than this at once.
constexpr std::size_t most_at_once = 1 << 20;

} // namespace

bytes byte_receive_stream::receive(std::size_t max_bytes) {
    if (max_bytes == 0) throw std::invalid_argument("max_bytes must be a positive integer");
    std::byte small[first_try];
    if (max_bytes <= sizeof small) {
        std::size_t const count = receive_some(buffer(small, max_bytes));
        if (count == 0) throw end_of_stream();
        return {reinterpret_cast<char const*>(small), count};
    }
    bytes result(std::min(max_bytes, most_at_once), '\0');
    std::size_t const count = receive_some(as_buffer(result));
    if (count == 0) throw end_of_stream();
    bool const is_little = count <= result.size() / 4;
    result.resize(count);
    if (is_little) result.shrink_to_fit();
    return result;
}

void byte_send_stream::send(std::span<bytes_view const> parts) {
    if (parts.empty()) return send(bytes_view());
    for (bytes_view const part : parts)
        send(part);
}

} // namespace weft
