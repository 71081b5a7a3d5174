#include <weft/streams/connectable.hpp>

#include "unix_name.hpp"

#include <exception>
#include <stdexcept>
#include <system_error>

namespace weft {

namespace {

// One class of failure for all connectables, the cause nested.
template <class Connect> any_byte_stream connect_by(Connect connect, std::string const& where) {
    try {
        return connect();
    } catch (std::system_error const& cause) {
        std::throw_with_nested(connection_failed(cause.code(), "error connecting to " + where));
    }
}

} // namespace

tcp_connectable::tcp_connectable(std::string host, port_number port, connect_options options)
    : host_(std::move(host)), port_(port), options_(std::move(options)) {
    if (host_.empty()) throw std::invalid_argument("there is no host to connect to");
    if (port_ == 0) throw std::invalid_argument("the port to connect to must not be 0");
}

any_byte_stream tcp_connectable::connect() {
    return connect_by([this] { return connect_tcp(host_, port_, options_); },
                      host_ + " port " + std::to_string(port_));
}

unix_connectable::unix_connectable(path name) : name_(std::move(name)) {
    detail::unix_address(name_); // refuses a name that is too long
}

any_byte_stream unix_connectable::connect() {
    return connect_by([this] { return connect_unix(name_); },
                      detail::unix_address(name_).to_string());
}

any_connectable as_connectable(std::string host, port_number port) {
    return tcp_connectable(std::move(host), port);
}

any_connectable as_connectable(std::pair<std::string, port_number> host_and_port) {
    return tcp_connectable(std::move(host_and_port.first), host_and_port.second);
}

any_connectable as_connectable(path name) {
    return unix_connectable(std::move(name));
}

any_connectable as_connectable(any_connectable connectable) {
    return connectable;
}

} // namespace weft
