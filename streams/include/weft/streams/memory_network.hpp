#pragma once

#include <weft/io/port_number.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/byte_stream.hpp>
#include <weft/streams/listener.hpp>
#include <weft/streams/socket.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

namespace weft {

namespace detail {
struct network_state;
struct network_link;
struct network_port;
} // namespace detail

/// What happens to octets on their way. Everything that is random is drawn from the seed: under
/// "sim", the same seed of the run and of the network is the same run.
struct memory_network_options {
    std::uint64_t seed = 0;
    duration least_delay{}; ///< that a piece, an end or a connection is under way
    duration most_delay{};  ///< the same as least_delay, if that is more
    std::size_t largest_piece =
        std::numeric_limits<std::size_t>::max(); ///< data is split at random
    std::size_t capacity = 65536; ///< octets that are under way or unread; then send() waits
    double reset_probability = 0; ///< that a piece breaks its connection instead of arriving
};

/// One end of a connection in a memory_network.
///
/// As a TCP connection: what was sent before the end arrives before it; sending to one who has
/// closed breaks. reset() breaks both ends at once, what was under way is lost.
///
/// Threads, cancellation, errors  as socket_stream. Attributes: local_address, local_port,
///                                remote_address, remote_port of socket_attribute
/// Source                         Trio memory_stream_pair
class memory_network_stream final : public byte_stream {
public:
    memory_network_stream(memory_network_stream&&) noexcept;
    memory_network_stream& operator=(memory_network_stream&&) noexcept;
    ~memory_network_stream() override;

    std::size_t receive_some(buffer target) override;
    using byte_send_stream::send;
    void send(bytes_view data) override;
    void send_eof() override;
    void reset(); ///< Never waits. Any thread.
    void close() override;
    attribute_map extra_attributes() const override;

private:
    friend struct detail::network_state;
    memory_network_stream(std::shared_ptr<detail::network_link> link, int side);

    std::shared_ptr<detail::network_link> link_; // none: moved from
    int side_;
};

/// Where connections to a port of a memory_network come from.
///
/// Threads       any task; close() wakes the one that waits in accept()
/// Cancellation  accept() is a cancellation point; cancelled, it took no connection
/// Errors        closed_resource_error; busy_resource_error. Attributes: local_address, local_port
class memory_network_listener final : public listener<memory_network_stream> {
public:
    memory_network_listener(memory_network_listener&&) noexcept;
    memory_network_listener& operator=(memory_network_listener&&) noexcept;
    ~memory_network_listener() override;

    memory_network_stream accept();
    void close() override;
    attribute_map extra_attributes() const override;

protected:
    void serve_connections(connection_handler<memory_network_stream> const&, task_group&) override;

private:
    friend struct detail::network_state;
    explicit memory_network_listener(std::shared_ptr<detail::network_port> port);
    static std::optional<memory_network_stream> try_accept(detail::network_port&,
                                                           detail::connection_place&);

    std::shared_ptr<detail::network_port> port_; // none: moved from
};

/// A network without a kernel, for tests of servers and clients: with delays, with data that
/// arrives in pieces, with connections that break, all from a seed, and under "sim" in virtual
/// time.
///
///     weft::memory_network network({.seed = seed, .most_delay = 50ms, .largest_piece = 100});
///     auto listener = network.listen(80);
///     ...listener.serve(handler)...      auto stream = network.connect(80);
///
/// Threads  any
/// Source   Trio's virtual networking, lockstep_stream_pair
class memory_network {
public:
    /// Errors: std::invalid_argument (delays, a probability or sizes that make no sense)
    explicit memory_network(memory_network_options options = {});

    /// Port 0: one that nobody listens on. Never waits. Errors: std::system_error (EADDRINUSE)
    memory_network_listener listen(port_number port = 0);
    /// A cancellation point. Errors: connection_failed (ECONNREFUSED: nobody listens)
    memory_network_stream connect(port_number port);
    /// Both ends of a connection. Never waits.
    std::pair<memory_network_stream, memory_network_stream> make_pair();

private:
    std::shared_ptr<detail::network_state> state_;
};

} // namespace weft
