#pragma once

#include <weft/io/bytes.hpp>
#include <weft/streams/object_stream.hpp>

#include <cstddef>
#include <iterator>
#include <span>

namespace weft {

/// Where octets come from, in order and without boundaries.
///
/// One task receives at a time; a second one gets busy_resource_error. `for (bytes chunk : stream)`
/// receives until end_of_stream. An implementation provides receive_some() alone.
///
/// Cancellation  both are cancellation points; cancelled, nothing was taken
/// Errors        closed_resource_error (closed on this side); end_of_stream (receive(): the other
///               side finished); broken_resource_error (the cause is nested); busy_resource_error;
///               std::invalid_argument (receive(0), an empty buffer)
/// Source        AnyIO ByteReceiveStream
class byte_receive_stream : public virtual resource, public virtual typed_attribute_provider {
public:
    static constexpr std::size_t default_chunk = 65536;

    /// Fills the front of the buffer with what there is and gives its length: at least 1, or 0 at
    /// the end, each time it is asked. Allocates nothing.
    virtual std::size_t receive_some(buffer) = 0;

    /// The same as a string of its own, of 1 to max_bytes octets. Sockets override it: while they
    /// wait they hold no memory for what will come.
    virtual bytes receive(std::size_t max_bytes = default_chunk);

    auto begin() { return detail::received_items<byte_receive_stream, bytes>(*this); }
    std::default_sentinel_t end() { return {}; }
};

/// Where octets go to.
///
/// One task sends at a time; a second one gets busy_resource_error. Sending nothing is allowed.
///
/// Cancellation  a cancellation point; cancelled or failed, how much was sent is unknown
/// Errors        closed_resource_error, broken_resource_error (also after send_eof()),
///               busy_resource_error
/// Source        AnyIO ByteSendStream
class byte_send_stream : public virtual resource, public virtual typed_attribute_provider {
public:
    /// Returns when all of it is on its way.
    virtual void send(bytes_view) = 0;

    /// The parts one after the other; where the system can gather, in one go.
    virtual void send(std::span<bytes_view const> parts);
};

/// Both directions, independent of each other. Source: AnyIO ByteStream
class byte_stream : public virtual byte_receive_stream, public virtual byte_send_stream {
public:
    /// Says that nothing more will be sent; receiving goes on. Idempotent. Errors:
    /// closed_resource_error, busy_resource_error (a send is under way)
    virtual void send_eof() = 0;
};

} // namespace weft

#include <weft/streams/any_byte_stream.hpp>
