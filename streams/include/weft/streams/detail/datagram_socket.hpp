#pragma once

#include <weft/io/address.hpp>
#include <weft/io/bytes.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/streams/datagram.hpp>
#include <weft/streams/typed_attributes.hpp>

namespace weft::detail {

/// A socket for datagrams, what UDP and UNIX have in common. Empty datagrams are datagrams.
class datagram_socket {
public:
    explicit datagram_socket(unique_fd);                  // not connected
    datagram_socket(unique_fd, socket_address remote);    // connected

    datagram receive();
    void send(bytes_view, socket_address const* to); // null: to the peer
    void close() noexcept { descriptor_.close(); }
    attribute_map attributes() const;
    int family() const noexcept { return family_; }

private:
    open_descriptor descriptor_;
    int family_;
    socket_address remote_;
};

} // namespace weft::detail
