#pragma once

#include <weft/io/port_number.hpp>
#include <weft/streams/detail/datagram_socket.hpp>
#include <weft/streams/object_stream.hpp>
#include <weft/streams/socket.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace weft {

struct udp_options {
    int family = 0;               ///< AF_INET or AF_INET6; 0: that of the local host
    std::string local_host{};     ///< empty: every interface
    port_number local_port = 0;   ///< 0: one that is free
    bool reuse_port = false;      ///< several sockets may share the port
};

/// A UDP socket that talks to anybody.
///
/// Each datagram arrives whole or not at all, and in any order; nothing is kept outside of the
/// kernel. One task receives and one sends at a time. When close() returns, the port is free.
///
/// Threads       any task; close() wakes those that wait in another one, and lets them leave
/// Cancellation  cancellation points; cancelled, nothing was taken or sent
/// Errors        closed_resource_error, busy_resource_error, std::system_error (EMSGSIZE and the
///               like)
/// Source        AnyIO UDPSocket
class udp_socket final : public unreliable_object_stream<datagram> {
public:
    /// Takes over a bound UDP socket. Errors: std::invalid_argument (not one; it is left alone)
    static udp_socket from_socket(unique_fd&&);
    static udp_socket from_socket(unique_fd& fd) { return from_socket(std::move(fd)); }
    explicit udp_socket(detail::datagram_socket socket) : socket_(std::move(socket)) {}

    datagram receive() override { return socket_.receive(); }
    void send(datagram item) override { socket_.send(item.data, &item.address); }
    /// To a host by name or address; a name is looked up first.
    void sendto(bytes_view data, std::string host, port_number port);

    /// Those that are there, at most so many (and 32), in one system call; waits for the first.
    /// Errors: std::invalid_argument (0)
    std::vector<datagram> receive_many(std::size_t most = 32) {
        return socket_.receive_many(most);
    }
    /// Sends some from the front, at least one if there are any, in one system call, and gives
    /// their number; waits for the first. An error concerns the first: nothing was sent.
    std::size_t send_many(std::span<datagram const> items) { return socket_.send_many(items); }

    void close() override { socket_.close(); }
    attribute_map extra_attributes() const override { return socket_.attributes(); }

private:
    detail::datagram_socket socket_;
};

/// A UDP socket with one peer; what others send to it the kernel drops.
///
/// Threads, cancellation  as udp_socket
/// Errors                 as udp_socket; broken_resource_error (the peer refused an earlier
///                        datagram; the next one may get through)
/// Source                 AnyIO ConnectedUDPSocket
class connected_udp_socket final : public unreliable_object_stream<bytes> {
public:
    /// Takes over a connected UDP socket. Errors: std::invalid_argument (not one; it is left alone)
    static connected_udp_socket from_socket(unique_fd&&);
    static connected_udp_socket from_socket(unique_fd& fd) { return from_socket(std::move(fd)); }
    explicit connected_udp_socket(detail::datagram_socket socket) : socket_(std::move(socket)) {}

    bytes receive() override { return std::move(socket_.receive().data); }
    void send(bytes item) override { socket_.send(item, nullptr); }

    /// As those of udp_socket.
    std::vector<datagram> receive_many(std::size_t most = 32) {
        return socket_.receive_many(most);
    }
    std::size_t send_many(std::span<bytes const> items) { return socket_.send_many(items); }

    void close() override { socket_.close(); }
    attribute_map extra_attributes() const override { return socket_.attributes(); }

private:
    detail::datagram_socket socket_;
};

/// Errors: std::invalid_argument (neither family nor local_host is given); std::system_error. A
/// cancellation point. Source: AnyIO create_udp_socket
udp_socket create_udp_socket(udp_options options = {});

/// A host given by name or address. Errors: std::system_error. A cancellation point. Source: AnyIO
/// create_connected_udp_socket
connected_udp_socket create_connected_udp_socket(std::string host, port_number port,
                                                 udp_options options = {});

} // namespace weft
