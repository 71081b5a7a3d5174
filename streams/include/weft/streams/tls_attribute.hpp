#pragma once

#ifdef WEFT_WITHOUT_TLS
#error "this weft was built without TLS (-Dtls=disabled, or no OpenSSL)"
#endif

#include <weft/io/bytes.hpp>
#include <weft/streams/typed_attributes.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

struct ssl_st; // OpenSSL's SSL

namespace weft {

/// Whom a certificate names, who says so, and from when until when. Names as RFC 2253 writes them;
/// alternative names with their kind, "DNS:example.org", "IP:127.0.0.1". Source: Python
/// SSLSocket.getpeercert
struct tls_certificate {
    std::string subject{};
    std::string issuer{};
    std::vector<std::string> alternative_names{};
    std::chrono::system_clock::time_point not_before{};
    std::chrono::system_clock::time_point not_after{};
    std::string serial_number{}; ///< hexadecimal
};

/// What TLS streams can be asked for, besides what the stream underneath can. Source: AnyIO
/// TLSAttribute
namespace tls_attribute {
/// What ALPN agreed upon; empty: nothing.
inline constexpr typed_attribute<std::optional<std::string>> alpn_protocol{"alpn_protocol"};
/// RFC 5929; empty in TLS 1.3, which has none.
inline constexpr typed_attribute<std::optional<bytes>> channel_binding_tls_unique{
    "channel_binding_tls_unique"};
inline constexpr typed_attribute<std::string> cipher{"cipher"}; ///< as OpenSSL spells it
/// Empty: the peer showed none, or nobody verified it.
inline constexpr typed_attribute<std::optional<tls_certificate>> peer_certificate{
    "peer_certificate"};
/// DER; empty: the peer showed none.
inline constexpr typed_attribute<std::optional<bytes>> peer_certificate_binary{
    "peer_certificate_binary"};
inline constexpr typed_attribute<bool> server_side{"server_side"};
/// What both sides offered; empty on the client's side, which is not told.
inline constexpr typed_attribute<std::optional<std::vector<std::string>>> shared_ciphers{
    "shared_ciphers"};
/// OpenSSL's object. It stays the stream's; whoever uses it must be alone with the stream.
inline constexpr typed_attribute<ssl_st*> ssl_object{"ssl_object"};
inline constexpr typed_attribute<bool> standard_compatible{"standard_compatible"};
inline constexpr typed_attribute<std::string> tls_version{"tls_version"}; ///< "TLSv1.3"
} // namespace tls_attribute

} // namespace weft
