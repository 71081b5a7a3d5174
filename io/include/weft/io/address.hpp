#pragma once

#include <weft/io/port_number.hpp>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace weft {

namespace detail {
struct raw_address;
}

/// An IPv4 or IPv6 address; the latter with a scope, if it is link-local.
///
/// Ordered by family, then octets, then scope. The default one is 0.0.0.0.
///
/// Threads  a value
/// Errors   std::invalid_argument (parse())
/// Source   AnyIO IPAddressType
class ip_address {
public:
    ip_address() noexcept = default;

    /// "192.0.2.1", "2001:db8::1", "fe80::1%2", "fe80::1%eth0". Nothing else: no names, no octal.
    static ip_address parse(std::string_view text);
    static ip_address any_v4() noexcept { return {}; }
    static ip_address any_v6() noexcept { return from_v6({}); }
    static ip_address from_v4(std::array<std::uint8_t, 4> octets) noexcept;
    static ip_address from_v6(std::array<std::uint8_t, 16> octets,
                              std::uint32_t scope = 0) noexcept;

    /// parse() gives the same address again; a scope is shown as a number.
    std::string to_string() const;
    /// to_string(), so that an address may stand where a host is expected.
    operator std::string() const { return to_string(); }

    int family() const noexcept; ///< AF_INET or AF_INET6
    bool is_v6() const noexcept { return is_v6_; }
    std::uint32_t scope() const noexcept { return scope_; }
    std::array<std::uint8_t, 16> const& octets() const noexcept {
        return octets_;
    } ///< IPv4: first 4

    friend auto operator<=>(ip_address const&, ip_address const&) = default;

private:
    bool is_v6_ = false;
    std::array<std::uint8_t, 16> octets_{};
    std::uint32_t scope_ = 0;
};

/// Where a socket is: an IP address and a port, a path, or a name in the abstract UNIX namespace.
/// The default one is none of them.
///
/// As text: "192.0.2.1:80", "[fe80::1%2]:80", "unix:/run/x.socket", "unix-abstract:x", "unix:" for
/// a UNIX socket without a name, and "" for the default one.
///
/// Threads  a value
/// Errors   std::invalid_argument (parse(), a port that is none, a path or name that is too long
///          or empty);
///          std::logic_error (ip(), port(), path() of another kind of address)
/// Source   AnyIO IPSockAddrType, UNIX addresses
class socket_address {
public:
    socket_address() noexcept = default;
    socket_address(ip_address ip, port_number port) noexcept;

    static socket_address parse(std::string_view text);
    static socket_address unix_path(std::string path);
    static socket_address unix_abstract(std::string name);

    std::string to_string() const; ///< parse() gives the same address again

    int family() const noexcept; ///< AF_INET, AF_INET6, AF_UNIX or AF_UNSPEC
    ip_address const& ip() const;
    std::uint16_t port() const;
    std::string const& path() const; ///< of a UNIX address, or the abstract name; "" without a name
    bool is_abstract() const noexcept { return kind_ == kind::abstract_name; }

    friend auto operator<=>(socket_address const&, socket_address const&) = default;

private:
    friend struct detail::raw_address;
    enum class kind : std::uint8_t { none, ip, path, abstract_name };

    kind kind_ = kind::none;
    ip_address ip_;
    std::uint16_t port_ = 0;
    std::string path_;
};

} // namespace weft

template <> struct std::hash<weft::ip_address> {
    std::size_t operator()(weft::ip_address const&) const noexcept;
};
template <> struct std::hash<weft::socket_address> {
    std::size_t operator()(weft::socket_address const&) const noexcept;
};
