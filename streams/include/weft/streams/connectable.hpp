#pragma once

#include <weft/io/path.hpp>
#include <weft/io/port_number.hpp>
#include <weft/streams/any_byte_stream.hpp>
#include <weft/streams/tcp.hpp>
#ifndef WEFT_WITHOUT_TLS
#include <weft/streams/tls_stream.hpp>
#endif
#include <weft/streams/unix_socket.hpp>

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace weft {

/// Something that byte streams can be connected to, again and again.
///
/// Threads       as the implementation says; those of weft: connect() by any number of tasks
/// Cancellation  connect() is a cancellation point; cancelled, nothing is left open
/// Errors        connection_failed, with the cause nested
/// Source        AnyIO ByteStreamConnectable
class byte_stream_connectable {
public:
    byte_stream_connectable() = default;
    byte_stream_connectable(byte_stream_connectable const&) = default;
    byte_stream_connectable& operator=(byte_stream_connectable const&) = default;
    virtual ~byte_stream_connectable() = default;

    virtual any_byte_stream connect() = 0;
};

/// A host and a port, for connect_tcp(), whose connection_failed is nested in that of connect().
/// Errors: std::invalid_argument (no host, port 0). Source: AnyIO TCPConnectable
class tcp_connectable final : public byte_stream_connectable {
public:
    tcp_connectable(std::string host, port_number port, connect_options options = {});

    any_byte_stream connect() override;
    std::string const& host() const { return host_; }
    std::uint16_t port() const { return port_; }

private:
    std::string host_;
    std::uint16_t port_;
    connect_options options_;
};

/// The path of a UNIX socket, for connect_unix(). Errors: std::invalid_argument (too long). Source:
/// AnyIO UNIXConnectable
class unix_connectable final : public byte_stream_connectable {
public:
    explicit unix_connectable(path name);

    any_byte_stream connect() override;
    path const& name() const { return name_; }

private:
    path name_;
};

/// A connectable of any kind, as a value. Threads and errors are those of what is held; copies share
/// it, and moving copies. Source: AnyIO as_connectable
class any_connectable final : public byte_stream_connectable {
public:
    template <std::derived_from<byte_stream_connectable> Connectable>
        requires(!std::same_as<Connectable, any_connectable>)
    any_connectable(Connectable connectable)
        : held_(std::make_shared<Connectable>(std::move(connectable))) {}
    any_connectable(any_connectable const&) = default; // the move as well: none is left empty
    any_connectable& operator=(any_connectable const&) = default;
    ~any_connectable() override = default;

    any_byte_stream connect() override { return held_->connect(); }

private:
    friend class tls_connectable;

    std::shared_ptr<byte_stream_connectable> held_;
};

#ifndef WEFT_WITHOUT_TLS
/// TLS over what another connectable connects to. Without a hostname among the options, a
/// tcp_connectable's host is verified, also of one in an any_connectable. Errors: those of the other one,
/// and of tls_stream::wrap(); then nothing is left open. Source: AnyIO TLSConnectable
class tls_connectable final : public byte_stream_connectable {
public:
    tls_connectable(any_connectable connectable, tls_options options = {});

    any_byte_stream connect() override;

private:
    any_connectable connectable_;
    tls_options options_;
};
#endif

/// What a remote side is given as, made into something to connect to: a host and a port, the path of a
/// UNIX socket, or a connectable as it is; and with options, TLS over it. Errors:
/// std::invalid_argument. Source: AnyIO as_connectable
any_connectable as_connectable(std::string host, port_number port);
any_connectable as_connectable(std::pair<std::string, port_number> host_and_port);
any_connectable as_connectable(path name);
any_connectable as_connectable(any_connectable connectable);
#ifndef WEFT_WITHOUT_TLS
any_connectable as_connectable(std::string host, port_number port, tls_options options);
any_connectable as_connectable(std::pair<std::string, port_number> host_and_port,
                               tls_options options);
any_connectable as_connectable(path name, tls_options options);
any_connectable as_connectable(any_connectable connectable, tls_options options);
#endif

} // namespace weft
