#pragma once

#include <weft/streams/error.hpp>

#include <string>

#include <openssl/ssl.h>

namespace weft::detail {

// OpenSSL's error queue belongs to the thread, and a fiber leaves it at each suspension. So the
// queue is emptied before a call into OpenSSL, and what the call puts there is taken before
// anything else happens.

/// The first error in the queue, which is empty afterwards. `doing` begins the reason, if given.
tls_error take_tls_error(std::string const& doing = {});
/// The same for a stream: says why a certificate was not accepted.
tls_error take_tls_error(SSL const* failed);

/// What is in the queue is of no interest. Most often there is nothing, which is quick.
void clear_tls_errors();

[[noreturn]] inline void throw_tls_error(std::string const& doing) { throw take_tls_error(doing); }

} // namespace weft::detail
