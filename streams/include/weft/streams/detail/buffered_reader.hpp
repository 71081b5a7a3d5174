#pragma once

#include <weft/streams/byte_stream.hpp>
#include <weft/streams/detail/closable_guard.hpp>
#include <weft/streams/detail/octet_queue.hpp>

#include <cstddef>
#include <memory>
#include <type_traits>

namespace weft::detail {

/// Of an object stream each object is taken whole; of a byte stream only what was asked for.
template <class Given>
constexpr bool read_ahead_from =
    !std::derived_from<typename held_type<Given>::type, byte_receive_stream>;

/// What the two buffered streams have in common; their members say what it does.
class buffered_reader {
public:
    explicit buffered_reader(bool read_ahead)
        : reading_(std::make_unique<closable_guard>("reading from")), read_ahead_(read_ahead) {}

    bytes buffer() const { return queue_.view().to_bytes(); }
    void feed_data(bytes_view data) { queue_.append(data); }

    std::size_t receive_some(byte_receive_stream& from, weft::buffer target);
    bytes receive_exactly(byte_receive_stream& from, std::size_t count);
    bytes receive_until(byte_receive_stream& from, bytes_view delimiter, std::size_t max_bytes);
    void receive_until(byte_receive_stream& from, bytes& into, bytes_view delimiter,
                       std::size_t max_bytes);
    void close(resource& wrapped);

private:
    resource_guard::entry enter(char const* call);
    bool receive_more(byte_receive_stream& from, std::size_t wanted);
    std::size_t find(byte_receive_stream& from, bytes_view delimiter, std::size_t max_bytes);

    std::unique_ptr<closable_guard> reading_; // none: moved from
    octet_queue queue_;
    bool read_ahead_;
};

} // namespace weft::detail
