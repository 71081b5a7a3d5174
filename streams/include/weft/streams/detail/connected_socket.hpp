#pragma once

#include <weft/io/address.hpp>
#include <weft/io/bytes.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/streams/typed_attributes.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace weft::detail {

/// A connected stream socket, what TCP and UNIX streams have in common. Members are those of
/// byte_stream, with its threads, cancellation and errors.
class connected_socket {
public:
    connected_socket(open_descriptor, int family, socket_address remote);

    std::size_t receive_some(buffer);
    bytes receive(std::size_t max_bytes);
    void send(bytes_view);
    void send(std::span<bytes_view const> parts);
    std::uint64_t send_file(int file, std::uint64_t offset, std::uint64_t count);
    void send_eof();
    void close() noexcept { descriptor_.close(); }

    attribute_map attributes() const;
    open_descriptor const& descriptor() const { return descriptor_; }

private:
    template <class Room> buffer receive_into(Room const&);

    open_descriptor descriptor_;
    int family_;
    socket_address remote_;
};

/// The rest of what send() does, for those who have entered.
void send_all(descriptor_use&, bytes_view);
[[noreturn]] void fail_send(descriptor_use&, int error);

/// What a socket made elsewhere must be to be adopted.
struct expected_socket {
    std::span<int const> families;
    int type;
    enum class state : unsigned char { any, connected, bound } must_be;
};

/// Errors: std::invalid_argument, saying what is wrong; the descriptor is left alone.
void check_socket(int fd, expected_socket const&);
void make_non_blocking(int fd); // and close-on-exec. Errors: std::system_error
void set_no_delay(int fd) noexcept; // of TCP
bool is_tcp(int fd) noexcept;

int family_of(int fd);
socket_address local_address_of(int fd); // Errors: std::system_error
socket_address remote_address_of(int fd);

/// raw_socket, family, local_address and, for IP, local_port; with a remote address those, too.
attribute_map socket_attributes(open_descriptor const&, int family, socket_address const* remote);

/// The error of a read that gave count (0: the end, or what has broken the stream before), or 0. A reset is told by
/// the kernel once; it is kept with the descriptor and told each time.
int read_error(descriptor_use&, ssize_t count) noexcept;
/// broken_resource_error, or std::system_error for what passes by, such as ENOBUFS.
[[noreturn]] void throw_socket_error(char const* call, int error);
/// broken_resource_error with the cause nested.
[[noreturn]] void throw_broken(char const* call, int error);

} // namespace weft::detail
