#pragma once

#include <weft/io/address.hpp>
#include <weft/io/bytes.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/streams/datagram.hpp>
#include <weft/streams/typed_attributes.hpp>

#include <cstddef>
#include <span>
#include <vector>

#include <sys/socket.h>

namespace weft::detail {

/// A socket for datagrams, what UDP and UNIX have in common. Empty datagrams are datagrams.
class datagram_socket {
public:
    explicit datagram_socket(unique_fd&&);                // not connected
    datagram_socket(unique_fd&&, socket_address remote);  // connected

    datagram receive();
    void send(bytes_view, socket_address const* to); // null: to the peer

    /// At least one and at most `most`, which must not be 0: those that are there.
    std::vector<datagram> receive_many(std::size_t most);
    /// Sends from the front what there is room for, at least one; gives their number.
    std::size_t send_many(std::span<datagram const>);
    std::size_t send_many(std::span<bytes const>); // to the peer

    void close() { descriptor_.close_completely(); } // KD7
    attribute_map attributes() const;
    int family() const noexcept { return family_; }

private:
    bool is_connected() const noexcept { return remote_.family() != AF_UNSPEC; }
    [[noreturn]] static void fail_receive(int error);
    [[noreturn]] void fail_send(int error, socket_address const* to) const;

    open_descriptor descriptor_;
    int family_;
    socket_address remote_;
};

} // namespace weft::detail
