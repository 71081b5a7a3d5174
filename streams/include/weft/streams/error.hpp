#pragma once

#include <weft/io/error.hpp>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace weft {

/// The other side finished in good order; nothing more will come. Source: AnyIO EndOfStream
class end_of_stream : public error {
public:
    end_of_stream() : error("the stream has ended") {}
    using error::error;
};

/// The stream ended before everything that was asked for had come; the cause is nested, and what
/// did come is still in the buffer. Source: AnyIO IncompleteRead
class incomplete_read : public error {
public:
    incomplete_read() : error("the stream ended before the read could be completed") {}
    using error::error;
};

/// So many bytes and no delimiter among them; they are still in the buffer. Source: AnyIO
/// DelimiterNotFound
class delimiter_not_found : public error {
public:
    explicit delimiter_not_found(std::size_t max_bytes)
        : error("the delimiter was not found among the first " + std::to_string(max_bytes) +
                " bytes") {}
};

/// Octets that are no text in the encoding, or text that the encoding does not have. Source: Python
/// UnicodeDecodeError, UnicodeEncodeError
class unicode_error : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

/// What TLS says when it fails: a certificate that is not trusted, a version that is not spoken,
/// octets that are not TLS. Source: Python ssl.SSLError
class tls_error : public error {
public:
    tls_error(unsigned long code, std::string reason)
        : error("TLS: " + reason), code_(code), reason_(std::move(reason)) {}

    unsigned long code() const { return code_; }           ///< OpenSSL's; 0 where it has none
    std::string const& reason() const { return reason_; } ///< the same in words

private:
    unsigned long code_;
    std::string reason_;
};

/// The object knows no such attribute. Source: AnyIO TypedAttributeLookupError
class typed_attribute_lookup_error : public lookup_error {
public:
    using lookup_error::lookup_error;
};

} // namespace weft
