#pragma once

#include <weft/io/address.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/streams/detail/place_waits.hpp>
#include <weft/streams/typed_attributes.hpp>

namespace weft::detail {

struct accepted_socket {
    unique_fd fd;
    int family = 0;
    socket_address remote;
};

/// A socket that accepts, what TCP and UNIX listeners have in common.
class listening_socket {
public:
    listening_socket(unique_fd, int family);
    static listening_socket adopt(unique_fd&&, bool is_unix); // Errors: std::invalid_argument

    accepted_socket accept(); // Errors: std::system_error
    /// Takes the place along with the connection. Waits when there are no descriptors left.
    accepted_socket accept_or_back_off(connection_place&);
    void close() {
        waits_.close();
        descriptor_.close_completely(); // KD7
    }
    attribute_map attributes() const;

private:
    int try_accept(accepted_socket&, connection_place&); // 0, or the errno; EAGAIN: no place

    open_descriptor descriptor_;
    place_waits waits_;
    int family_;
};

} // namespace weft::detail
