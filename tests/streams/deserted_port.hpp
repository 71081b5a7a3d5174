#pragma once

#include "support/run_test.hpp"

#include <weft/io/descriptor.hpp>

#include <cstdint>

#include <netinet/in.h>
#include <sys/socket.h>

namespace weft::test {

/// A TCP port that nobody listens on, nor comes to while this is there: it is bound, at all addresses that there are.
class deserted_port {
public:
    deserted_port() {
        sockaddr_in6 at6{};
        at6.sin6_family = AF_INET6;
        sockaddr_in at4{};
        at4.sin_family = AF_INET;
        if (!bind_to(at6) && !bind_to(at4)) throw failure("no port for a test"); // a container without IPv6
    }
    std::uint16_t number() const { return number_; }

private:
    template <class Address> bool bind_to(Address at) {
        auto* const address = reinterpret_cast<sockaddr*>(&at);
        socklen_t length = sizeof at;
        int const on = 1; // connecting may start from there
        bound_.reset(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        ::setsockopt(bound_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (::bind(bound_.get(), address, length) != 0 || ::getsockname(bound_.get(), address, &length) != 0)
            return false;
        number_ = ntohs(reinterpret_cast<sockaddr_in const*>(address)->sin_port); // in both at the same place
        return true;
    }

    unique_fd bound_;
    std::uint16_t number_ = 0;
};

} // namespace weft::test
