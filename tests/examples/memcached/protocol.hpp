#pragma once

#include "store.hpp"

#include <weft/streams/buffered.hpp>

#include <cstddef>

namespace memcached {

constexpr std::size_t longest_key = 250;
constexpr std::size_t longest_line = 2048;
constexpr std::size_t largest_item = 1 << 20;
constexpr char const* server_version = "1.6.0";
constexpr unsigned char binary_request = 0x80; ///< the first octet of each; no text begins with it

/// Both talk until the client ends, asks for the end, or says what cannot be understood.
void speak_text(weft::buffered_byte_stream& client, store&);
void speak_binary(weft::buffered_byte_stream& client, store&);

} // namespace memcached
