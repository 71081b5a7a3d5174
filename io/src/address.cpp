#include <weft/io/address.hpp>

#include <weft/io/detail/raw_address.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <stdexcept>

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/un.h>

namespace weft {

namespace {

constexpr std::string_view path_prefix = "unix:";
constexpr std::string_view abstract_prefix = "unix-abstract:";
constexpr std::size_t longest_path =
    sizeof(::sockaddr_un::sun_path) - 1; // with its NUL, as bind() wants

[[noreturn]] void refuse(char const* what, std::string_view text) {
    throw std::invalid_argument(std::string(what) + ": '" + std::string(text) + "'");
}

template <class Number> bool read_number(std::string_view text, Number& into) {
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::uint32_t parse_scope(std::string_view scope, std::string_view text) {
    std::uint32_t number = 0;
    if (read_number(scope, number)) return number;
    if (scope.find('\0') != scope.npos) refuse("a NUL in an address", text);
    number = ::if_nametoindex(std::string(scope).c_str());
    if (number == 0) refuse("no such network interface in an address", text);
    return number;
}

std::uint16_t parse_port(std::string_view port, std::string_view text) {
    std::uint16_t number = 0;
    if (!read_number(port, number)) refuse("not a socket address, the port is wrong", text);
    return number;
}

} // namespace

void detail::refuse_port(std::intmax_t number) {
    throw std::invalid_argument(std::to_string(number) + " is no port: those are 0 to 65535");
}

ip_address ip_address::from_v4(std::array<std::uint8_t, 4> octets) noexcept {
    ip_address result;
    std::ranges::copy(octets, result.octets_.begin());
    return result;
}

ip_address ip_address::from_v6(std::array<std::uint8_t, 16> octets, std::uint32_t scope) noexcept {
    ip_address result;
    result.is_v6_ = true;
    result.octets_ = octets;
    result.scope_ = scope;
    return result;
}

ip_address ip_address::parse(std::string_view text) {
    std::size_t const percent = text.find('%');
    std::string const address(text.substr(0, percent));
    ip_address result;
    if (address.find('\0') == std::string::npos) { // inet_pton would stop there
        if (percent == std::string_view::npos &&
            ::inet_pton(AF_INET, address.c_str(), result.octets_.data()) == 1)
            return result;
        if (::inet_pton(AF_INET6, address.c_str(), result.octets_.data()) == 1) {
            result.is_v6_ = true;
            if (percent != std::string_view::npos)
                result.scope_ = parse_scope(text.substr(percent + 1), text);
            return result;
        }
    }
    refuse("not an IP address", text);
}

std::string ip_address::to_string() const {
    char text[INET6_ADDRSTRLEN];
    ::inet_ntop(family(), octets_.data(), text, sizeof text);
    return scope_ == 0 ? std::string(text) : text + ("%" + std::to_string(scope_));
}

int ip_address::family() const noexcept {
    return is_v6_ ? AF_INET6 : AF_INET;
}

socket_address::socket_address(ip_address ip, port_number port) noexcept
    : kind_(kind::ip), ip_(ip), port_(port) {}

socket_address socket_address::unix_path(std::string path) {
    if (path.empty() || path.size() > longest_path || path.find('\0') != std::string::npos)
        refuse("not a path for a UNIX socket: it must have 1 to 107 characters and no NUL", path);
    socket_address result;
    result.kind_ = kind::path;
    result.path_ = std::move(path);
    return result;
}

socket_address socket_address::unix_abstract(std::string name) {
    if (name.empty() || name.size() > longest_path)
        refuse("not a name for an abstract UNIX socket: it must have 1 to 107 octets", name);
    socket_address result;
    result.kind_ = kind::abstract_name;
    result.path_ = std::move(name);
    return result;
}

socket_address socket_address::parse(std::string_view text) {
    if (text.empty()) return {};
    if (text.starts_with(abstract_prefix))
        return unix_abstract(std::string(text.substr(abstract_prefix.size())));
    if (text == path_prefix) {
        socket_address nameless;
        nameless.kind_ = kind::path;
        return nameless;
    }
    if (text.starts_with(path_prefix))
        return unix_path(std::string(text.substr(path_prefix.size())));
    std::size_t const colon = text.rfind(':');
    if (colon == std::string_view::npos) refuse("not a socket address, there is no port", text);
    std::string_view host = text.substr(0, colon);
    bool const in_brackets = host.size() >= 2 && host.front() == '[' && host.back() == ']';
    if (in_brackets) host = host.substr(1, host.size() - 2);
    ip_address const ip = ip_address::parse(host);
    if (ip.is_v6() != in_brackets) refuse("not a socket address, IPv6 needs brackets", text);
    return {ip, parse_port(text.substr(colon + 1), text)};
}

std::string socket_address::to_string() const {
    switch (kind_) {
    case kind::none:
        break;
    case kind::ip: {
        std::string const host = ip_.is_v6() ? "[" + ip_.to_string() + "]" : ip_.to_string();
        return host + ":" + std::to_string(port_);
    }
    case kind::path:
        return std::string(path_prefix) + path_;
    case kind::abstract_name:
        return std::string(abstract_prefix) + path_;
    }
    return {};
}

int socket_address::family() const noexcept {
    if (kind_ == kind::none) return AF_UNSPEC;
    return kind_ == kind::ip ? ip_.family() : AF_UNIX;
}

ip_address const& socket_address::ip() const {
    if (kind_ != kind::ip) throw std::logic_error("this socket address has no IP address");
    return ip_;
}

std::uint16_t socket_address::port() const {
    if (kind_ != kind::ip) throw std::logic_error("this socket address has no port");
    return port_;
}

std::string const& socket_address::path() const {
    if (family() != AF_UNIX) throw std::logic_error("this socket address has no path");
    return path_;
}

namespace detail {

raw_address::raw_address(socket_address const& from) noexcept {
    auto& ip4 = reinterpret_cast<::sockaddr_in&>(storage);
    auto& ip6 = reinterpret_cast<::sockaddr_in6&>(storage);
    auto& local = reinterpret_cast<::sockaddr_un&>(storage);
    storage.ss_family = ::sa_family_t(from.family());
    switch (from.family()) {
    case AF_INET:
        ip4.sin_port = htons(from.port_);
        std::memcpy(&ip4.sin_addr, from.ip_.octets().data(), sizeof ip4.sin_addr);
        length = sizeof ip4;
        break;
    case AF_INET6:
        ip6.sin6_port = htons(from.port_);
        ip6.sin6_scope_id = from.ip_.scope();
        std::memcpy(&ip6.sin6_addr, from.ip_.octets().data(), sizeof ip6.sin6_addr);
        length = sizeof ip6;
        break;
    case AF_UNIX: {
        bool const is_abstract = from.is_abstract();
        std::memcpy(local.sun_path + is_abstract, from.path_.data(), from.path_.size());
        // A leading NUL, or the one at the end, for which there may be no room in a peer's name.
        length = ::socklen_t(std::min(sizeof local, offsetof(::sockaddr_un, sun_path) +
                                                        from.path_.size() +
                                                        (from.path_.empty() ? 0 : 1)));
        break;
    }
    default:
        length = sizeof(::sa_family_t);
    }
}

socket_address raw_address::to_address() const {
    return to_address(get(), length);
}

socket_address raw_address::to_address(::sockaddr const* from, ::socklen_t length) {
    if (from == nullptr || length < sizeof(::sa_family_t)) return {};
    if (from->sa_family == AF_INET && length >= sizeof(::sockaddr_in)) {
        ::sockaddr_in ip4;
        std::memcpy(&ip4, from, sizeof ip4);
        std::array<std::uint8_t, 4> octets{};
        std::memcpy(octets.data(), &ip4.sin_addr, octets.size());
        return {ip_address::from_v4(octets), ntohs(ip4.sin_port)};
    }
    if (from->sa_family == AF_INET6 && length >= sizeof(::sockaddr_in6)) {
        ::sockaddr_in6 ip6;
        std::memcpy(&ip6, from, sizeof ip6);
        std::array<std::uint8_t, 16> octets{};
        std::memcpy(octets.data(), &ip6.sin6_addr, octets.size());
        return {ip_address::from_v6(octets, ip6.sin6_scope_id), ntohs(ip6.sin6_port)};
    }
    if (from->sa_family != AF_UNIX) return {};
    socket_address result;
    result.kind_ = socket_address::kind::path;
    constexpr std::size_t start = offsetof(::sockaddr_un, sun_path);
    if (length <= start) return result; // without a name
    auto const* const name = reinterpret_cast<char const*>(from) + start;
    std::size_t const size = length - start;
    if (name[0] == '\0') {
        result.kind_ = socket_address::kind::abstract_name;
        result.path_.assign(name + 1, size - 1);
    } else {
        result.path_.assign(name, ::strnlen(name, size));
    }
    return result;
}

} // namespace detail

} // namespace weft

namespace {

std::size_t mix(std::size_t seed, std::size_t more) noexcept {
    return (seed ^ more) * 0x9e3779b97f4a7c15u;
}

} // namespace

std::size_t std::hash<weft::ip_address>::operator()(weft::ip_address const& ip) const noexcept {
    std::string_view const octets(reinterpret_cast<char const*>(ip.octets().data()),
                                  ip.octets().size());
    return mix(mix(std::hash<std::string_view>()(octets), ip.is_v6()), ip.scope());
}

std::size_t
std::hash<weft::socket_address>::operator()(weft::socket_address const& address) const noexcept {
    if (address.family() == AF_UNIX)
        return mix(std::hash<std::string>()(address.path()), address.is_abstract());
    if (address.family() == AF_UNSPEC) return 0;
    return mix(std::hash<weft::ip_address>()(address.ip()), address.port());
}
