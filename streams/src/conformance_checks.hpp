#pragma once

#include <weft/streams/conformance.hpp>

#include <cstddef>

/// The checks that check_byte_stream() makes, each with ends of its own, and what they share.
namespace weft::detail {

constexpr std::size_t much = 300'000;        // more than fits into the buffers of most
constexpr std::size_t too_much = 20'000'000; // than fits into those of any

bytes pattern(std::size_t size, unsigned start);
/// By receive() and receive_some() in turn, so much at once at most.
bytes receive_exactly(byte_receive_stream& from, std::size_t size, std::size_t at_once);
void transfer(byte_send_stream& from, byte_receive_stream& to, unsigned start);
void close_both_at_once(byte_stream_ends& ends);
/// Forcefully. A stream that is broken already may say so once more.
void drop(byte_stream& stream);
void drop(byte_stream_ends& ends);

// conformance_data.cpp
void check_misuse(byte_stream_ends& ends);
void check_small(byte_stream_ends& ends);
void check_much(byte_stream_ends& ends);
void check_gathered(byte_stream_ends& ends);
void check_one_receiver(byte_stream_ends& ends);
void check_one_sender(byte_stream_ends& ends);

// conformance_ends.cpp
void check_end_by_close(byte_stream_ends& ends);
void check_half_close(byte_stream_ends& ends);
void check_closed(byte_stream_ends& ends);
void check_eof_of_closed(byte_stream_ends& ends);
void check_no_half_close(byte_stream_ends& ends);
void check_close_wakes(byte_stream_ends& ends);
void check_close_forcefully_wakes(byte_stream_ends& ends);
void check_close_wakes_sender(byte_stream_ends& ends);
void check_peer_gone(byte_stream_ends& ends);
void check_broken(byte_stream_ends& ends);

// conformance_cancelling.cpp
void check_cancelled_before(byte_stream_ends& ends);
void check_cancelled_receive(byte_stream_ends& ends);
void check_cancelled_with_data(byte_stream_ends& ends);
void check_cancelled_send(byte_stream_ends& ends);

} // namespace weft::detail
