#include "tls_failure.hpp"

#include <openssl/err.h>
#include <openssl/x509.h>

namespace weft::detail {

namespace {

std::string describe(unsigned long code) {
    if (code == 0) return "no reason given";
    if (char const* const reason = ::ERR_reason_error_string(code)) return reason;
    char text[256]; // as ERR_error_string() has it
    ::ERR_error_string_n(code, text, sizeof text);
    return text;
}

} // namespace

void clear_tls_errors() {
    if (::ERR_peek_error() != 0) ::ERR_clear_error();
}

tls_error take_tls_error(std::string const& doing) {
    unsigned long const code = ::ERR_get_error();
    ::ERR_clear_error();
    return tls_error(code, doing.empty() ? describe(code) : doing + ": " + describe(code));
}

tls_error take_tls_error(SSL const* failed) {
    unsigned long const code = ::ERR_get_error();
    ::ERR_clear_error();
    std::string reason = describe(code);
    bool const is_verdict =
        ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED;
    if (is_verdict)
        reason +=
            std::string(": ") + ::X509_verify_cert_error_string(::SSL_get_verify_result(failed));
    return tls_error(code, reason);
}

} // namespace weft::detail
