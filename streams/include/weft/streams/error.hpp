#pragma once

#include <weft/io/error.hpp>

#include <cstddef>
#include <string>

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

/// The object knows no such attribute. Source: AnyIO TypedAttributeLookupError
class typed_attribute_lookup_error : public lookup_error {
public:
    using lookup_error::lookup_error;
};

} // namespace weft
