#pragma once

#include "options.hpp"

#include <weft/streams/socket.hpp>

/// What is done with a connection, from its beginning to its end.
namespace echo {

void handle(mode, weft::socket_stream connection);

} // namespace echo
