#include <weft/streams/connectable.hpp>

namespace weft {

tls_connectable::tls_connectable(any_connectable connectable, tls_options options)
    : connectable_(std::move(connectable)), options_(std::move(options)) {
    if (!options_.server_side) options_.server_side = false; // whoever connects is the client
    auto const* const tcp = dynamic_cast<tcp_connectable const*>(connectable_.held_.get());
    if (tcp != nullptr && options_.hostname.empty()) options_.hostname = tcp->host();
}

any_byte_stream tls_connectable::connect() {
    return tls_stream::wrap(connectable_.connect(), options_);
}

any_connectable as_connectable(std::string host, port_number port, tls_options options) {
    return tls_connectable(tcp_connectable(std::move(host), port), std::move(options));
}

any_connectable as_connectable(std::pair<std::string, port_number> host_and_port,
                               tls_options options) {
    return as_connectable(std::move(host_and_port.first), host_and_port.second,
                          std::move(options));
}

any_connectable as_connectable(path name, tls_options options) {
    return tls_connectable(unix_connectable(std::move(name)), std::move(options));
}

any_connectable as_connectable(any_connectable connectable, tls_options options) {
    return tls_connectable(std::move(connectable), std::move(options));
}

} // namespace weft
