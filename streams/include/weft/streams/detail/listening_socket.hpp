#pragma once

#include <weft/io/address.hpp>
#include <weft/io/descriptor.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/streams/detail/connection_gate.hpp>
#include <weft/streams/typed_attributes.hpp>

#include <memory>
#include <utility>

namespace weft::detail {

struct accepted_socket {
    open_descriptor descriptor;
    int family = 0;
    socket_address remote;
};

/// A socket that accepts, what TCP and UNIX listeners have in common. Who is woken by close() may
/// destroy it at once: what both need is shared.
class listening_socket {
public:
    listening_socket(unique_fd, int family); // IP: with TCP_NODELAY from before it listened
    static listening_socket adopt(unique_fd&&, bool is_unix); // Errors: std::invalid_argument
    listening_socket(listening_socket&&) noexcept = default;
    listening_socket& operator=(listening_socket&& other) noexcept {
        if (this == &other) return *this; // moved onto itself it stays what it is
        listening_socket const old(std::move(*this));
        own_ = std::move(other.own_);
        return *this;
    }
    ~listening_socket();

    accepted_socket accept(); // Errors: std::system_error
    /// Takes the place along with the connection. Waits when there are no descriptors left.
    accepted_socket accept_or_back_off(connection_place&);
    void close();
    attribute_map attributes() const;

private:
    struct shared;
    explicit listening_socket(std::shared_ptr<shared> own) : own_(std::move(own)) {}
    shared& own() const; // Errors: closed_resource_error (moved from)

    std::shared_ptr<shared> own_;
};

} // namespace weft::detail
