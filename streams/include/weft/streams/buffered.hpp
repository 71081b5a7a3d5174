#pragma once

#include <weft/streams/byte_stream.hpp>
#include <weft/streams/detail/buffered_reader.hpp>

#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

namespace weft {

/// Reads a byte stream by length or up to a delimiter, and keeps what came too much.
///
/// What is in the buffer is given first and without waiting. buffer() and feed_data() are for the
/// task that receives, between its calls.
///
/// Threads       one task receives at a time; close() and extra() by any
/// Cancellation  every call that receives is a cancellation point; what had come stays in the
///               buffer, nothing is lost
/// Errors        as the stream that is wrapped; closed_resource_error (buffer() still works);
///               busy_resource_error; std::invalid_argument (receive(0), an empty delimiter)
/// Source        AnyIO BufferedByteReceiveStream
class buffered_byte_receive_stream final : public byte_receive_stream {
public:
    template <detail::held_as<byte_receive_stream, buffered_byte_receive_stream> Given>
    explicit buffered_byte_receive_stream(Given&& stream)
        : source_(std::forward<Given>(stream)), reader_(detail::read_ahead_from<Given>) {}

    /// A copy of what has come and not been given yet. Never waits; also after close().
    bytes buffer() const { return reader_.buffer(); }
    /// Puts octets behind what is in the buffer. Never waits.
    void feed_data(bytes_view data) { reader_.feed_data(data); }

    std::size_t receive_some(weft::buffer target) override {
        return reader_.receive_some(source_, target);
    }

    /// Exactly so many octets. Errors: incomplete_read (the stream ended before; what came is in
    /// the buffer)
    bytes receive_exactly(std::size_t count) { return reader_.receive_exactly(source_, count); }

    /// What comes before the delimiter, which is dropped. A delimiter that is in the buffer already
    /// is found wherever it is. Errors: delimiter_not_found (max_bytes or more have come without
    /// one); incomplete_read (the stream ended before); what came is in the buffer
    bytes receive_until(bytes_view delimiter, std::size_t max_bytes) {
        return reader_.receive_until(source_, delimiter, max_bytes);
    }
    /// The same into a string of the caller, whose memory is used again.
    void receive_until(bytes& into, bytes_view delimiter, std::size_t max_bytes) {
        reader_.receive_until(source_, into, delimiter, max_bytes);
    }

    void close() override { reader_.close(source_); }
    attribute_map extra_attributes() const override { return source_.extra_attributes(); }

private:
    any_byte_receive_stream source_;
    detail::buffered_reader reader_;
};

/// A byte stream that is read as a buffered_byte_receive_stream is; sending goes straight to the
/// stream that is wrapped.
///
/// Threads, cancellation, errors  as buffered_byte_receive_stream; sending as the wrapped stream
/// Source                         AnyIO BufferedByteStream
class buffered_byte_stream final : public byte_stream {
public:
    template <detail::held_as<byte_stream, buffered_byte_stream> Given>
    explicit buffered_byte_stream(Given&& stream)
        : stream_(std::forward<Given>(stream)), reader_(detail::read_ahead_from<Given>) {}

    bytes buffer() const { return reader_.buffer(); }
    void feed_data(bytes_view data) { reader_.feed_data(data); }
    std::size_t receive_some(weft::buffer target) override {
        return reader_.receive_some(stream_, target);
    }
    bytes receive_exactly(std::size_t count) { return reader_.receive_exactly(stream_, count); }
    bytes receive_until(bytes_view delimiter, std::size_t max_bytes) {
        return reader_.receive_until(stream_, delimiter, max_bytes);
    }
    void receive_until(bytes& into, bytes_view delimiter, std::size_t max_bytes) {
        reader_.receive_until(stream_, into, delimiter, max_bytes);
    }

    void send(bytes_view data) override { stream_.send(data); }
    void send(std::span<bytes_view const> parts) override { stream_.send(parts); }
    void send_eof() override { stream_.send_eof(); }
    void close() override { reader_.close(stream_); }
    attribute_map extra_attributes() const override { return stream_.extra_attributes(); }

private:
    any_byte_stream stream_;
    detail::buffered_reader reader_;
};

} // namespace weft
