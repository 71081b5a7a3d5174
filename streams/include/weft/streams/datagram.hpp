#pragma once

#include <weft/io/address.hpp>
#include <weft/io/bytes.hpp>

namespace weft {

/// One datagram, and where it comes from or goes to.
struct datagram {
    bytes data{};
    socket_address address{};
};

} // namespace weft
