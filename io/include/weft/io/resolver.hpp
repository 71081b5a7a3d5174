#pragma once

#include <weft/io/address.hpp>

#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace weft {

/// What getaddrinfo(3) is asked for, with its constants. 0 leaves it open.
struct getaddrinfo_options {
    int family = 0;
    int type = 0;
    int proto = 0;
    int flags = 0;
};

/// One answer of getaddrinfo(). Source: AnyIO getaddrinfo
struct address_info {
    int family = 0;
    int type = 0;
    int proto = 0;
    std::string canonname; ///< with AI_CANONNAME, in the first answer
    socket_address address;
};

struct name_info {
    std::string host;
    std::string service;
};

/// Looks a host and a service up, in the resolver's order. An empty host means the wildcard address
/// or loopback, an empty service port 0, as getaddrinfo(3) has it. A host name beyond ASCII is
/// encoded first (IDNA 2008).
///
/// Addresses in numbers are answered at once; names are looked up in a thread, not counted by the
/// default limiter.
///
/// Cancellation  a cancellation point; the thread's late answer is dropped
/// Errors        std::system_error of resolver_category() (EAI_NONAME and the like, EAI_SERVICE for
///               a port above 65535), or of the system; std::invalid_argument (not a host name)
/// Source        AnyIO getaddrinfo
std::vector<address_info> getaddrinfo(std::string host, std::string service,
                                      getaddrinfo_options options = {});

/// The name and the service behind an address; NI_NUMERICHOST and the like as flags. Threads,
/// cancellation and errors as getaddrinfo(). Source: AnyIO getnameinfo
name_info getnameinfo(socket_address const& address, int flags = 0);

/// Of the EAI_ constants.
std::error_category const& resolver_category() noexcept;

} // namespace weft
