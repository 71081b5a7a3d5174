#pragma once

#include <weft/streams/byte_stream.hpp>

#include <string>

namespace weft::test {

/// All octets until the stream ends.
inline std::string receive_all(byte_receive_stream& from) {
    std::string all;
    for (bytes const& chunk : from)
        all += chunk;
    return all;
}

} // namespace weft::test
