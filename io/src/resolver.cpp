#include <weft/io/resolver.hpp>

#include <weft/io/detail/host_name.hpp>
#include <weft/io/detail/raw_address.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/sync/to_thread.hpp>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <stdexcept>
#include <utility>

#include <netdb.h>
#include <sys/socket.h>

namespace weft {

namespace {

constexpr double lookups_at_once = 64; // each takes a thread, often for seconds

class eai_category final : public std::error_category {
public:
    char const* name() const noexcept override { return "getaddrinfo"; }
    std::string message(int code) const override { return ::gai_strerror(code); }
};

[[noreturn]] void fail(int code, int error, std::string const& what) {
    if (code == EAI_SYSTEM) throw std::system_error(error, std::system_category(), what);
    throw std::system_error(code, resolver_category(), what);
}

// An abandoned look-up may outlive its run, and so must its limiter: the one of the process, which
// destructors of static objects may use, too.
capacity_limiter& limiter() {
    static auto& of_process = *new capacity_limiter(lookups_at_once);
    return of_process;
}

template <class Look> auto in_thread(Look look) {
    return to_thread::run_sync(
        to_thread::options{.abandon_on_cancel = true, .limiter = &limiter()}, std::move(look));
}

bool is_number(std::string const& text) {
    return std::ranges::all_of(text, [](char digit) { return digit >= '0' && digit <= '9'; });
}

// glibc reads these as numbers as well, and takes their lower 16 bits.
bool is_number_in_disguise(std::string const& text) {
    return !text.empty() && std::string_view(" \t\n\v\f\r+-").find(text[0]) != std::string_view::npos;
}

bool is_address(std::string const& text) {
    try {
        ip_address::parse(text);
        return true;
    } catch (std::invalid_argument const&) { // a name
        return false;
    }
}

[[noreturn]] void refuse_service(std::string const& service) {
    throw std::system_error(EAI_SERVICE, resolver_category(),
                            "no service or port '" + service + "'");
}

// glibc takes its lower 16 bits as the port.
bool is_out_of_range(std::string const& port) {
    std::size_t const zeros = std::min(port.find_first_not_of('0'), port.size());
    std::size_t const digits = port.size() - zeros;
    return digits > 5 || (digits == 5 && port.compare(zeros, 5, "65535") > 0);
}

std::vector<address_info> look_up(std::string const& host, std::string const& service,
                                  getaddrinfo_options const& options) {
    ::addrinfo hints{};
    hints.ai_family = options.family;
    hints.ai_socktype = options.type;
    hints.ai_protocol = options.proto;
    hints.ai_flags = options.flags;
    // Neither of them is an error for getaddrinfo(3); here it is the wildcard or loopback, port 0.
    char const* const name = host.empty() ? nullptr : host.c_str();
    char const* const port = !service.empty() ? service.c_str() : name == nullptr ? "0" : nullptr;
    ::addrinfo* found = nullptr;
    errno = 0;
    int const code = ::getaddrinfo(name, port, &hints, &found);
    int const error = errno;
    std::unique_ptr<::addrinfo, void (*)(::addrinfo*)> const owned(found, [](::addrinfo* list) {
        if (list != nullptr) ::freeaddrinfo(list);
    });
    if (code == EAI_SERVICE) refuse_service(service);
    if (code != 0) fail(code, error, "cannot resolve '" + host + "'");
    std::vector<address_info> result;
    for (; found != nullptr; found = found->ai_next) {
        socket_address address =
            detail::raw_address::to_address(found->ai_addr, found->ai_addrlen);
        if (address.family() == AF_UNSPEC) continue; // malformed, or of a family unknown here
        result.push_back({found->ai_family, found->ai_socktype, found->ai_protocol,
                          found->ai_canonname != nullptr ? found->ai_canonname : "",
                          std::move(address)});
    }
    return result;
}

name_info look_up_name(socket_address const& address, int flags) {
    detail::raw_address const raw(address);
    char host[NI_MAXHOST];
    char service[NI_MAXSERV];
    errno = 0;
    int const code = ::getnameinfo(raw.get(), raw.length, host, sizeof host, service,
                                   sizeof service, flags);
    int const error = errno;
    if (code != 0) fail(code, error, "no name for " + address.to_string());
    return {host, service};
}

} // namespace

std::error_category const& resolver_category() noexcept {
    static auto const& of_process = *new eai_category; // errors of static destructors have it, too
    return of_process;
}

std::vector<address_info> getaddrinfo(std::string host, std::string service,
                                      getaddrinfo_options options) {
    detail::enter_blocking_call("getaddrinfo");
    if (host.find('\0') != std::string::npos || service.find('\0') != std::string::npos)
        throw std::invalid_argument("a NUL in a host name or service");
    if (is_number_in_disguise(service) || (is_number(service) && is_out_of_range(service)))
        refuse_service(service);
    host = detail::to_ascii_host(host);
    if ((host.empty() || is_address(host)) && is_number(service)) {
        if (!host.empty()) options.flags |= AI_NUMERICHOST;
        return look_up(host, service, options);
    }
    return in_thread([host = std::move(host), service = std::move(service), options] {
        return look_up(host, service, options);
    });
}

name_info getnameinfo(socket_address const& address, int flags) {
    detail::enter_blocking_call("getnameinfo");
    constexpr int numeric = NI_NUMERICHOST | NI_NUMERICSERV;
    if ((flags & numeric) == numeric) return look_up_name(address, flags);
    return in_thread([address, flags] { return look_up_name(address, flags); });
}

} // namespace weft
