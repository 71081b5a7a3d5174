#pragma once

#include <weft/streams/byte_stream.hpp>
#include <weft/streams/object_stream.hpp>

#include <iterator>
#include <memory>
#include <string>
#include <string_view>

namespace weft {

namespace detail {
class text_receiver;
class text_sender;
} // namespace detail

/// Text, as UTF-8, from the octets of a stream in any encoding.
///
/// An octet of a character that is not complete yet waits for the rest; at the end of the stream it
/// is dropped. receive() never gives an empty string. Encodings are those of iconv, under its names
/// and Python's ("utf-8", "latin-1", "utf-16-le", ...); "utf-16" and "utf-32" heed a byte order
/// mark, "utf-8-sig" drops one. `errors` says what becomes of octets that are no text: "strict"
/// throws, "replace" puts U+FFFD in their place, "ignore" drops them.
///
/// Threads       one task receives at a time; close() and extra() by any
/// Cancellation  receive() is a cancellation point; cancelled, nothing is lost
/// Errors        as the stream that is wrapped; unicode_error (strict: what comes before it was
///               given; it stays, each time); lookup_error (constructor: no such encoding);
///               std::invalid_argument (constructor: no such `errors`); busy_resource_error
/// Source        AnyIO TextReceiveStream
class text_receive_stream final : public virtual resource, public virtual typed_attribute_provider {
public:
    explicit text_receive_stream(any_byte_receive_stream transport,
                                 std::string_view encoding = "utf-8",
                                 std::string_view errors = "strict");
    text_receive_stream(text_receive_stream&&) noexcept;
    text_receive_stream& operator=(text_receive_stream&&) noexcept;
    ~text_receive_stream() override;

    std::string receive();
    auto begin() { return detail::received_items<text_receive_stream, std::string>(*this); }
    std::default_sentinel_t end() { return {}; }

    void close() override;
    attribute_map extra_attributes() const override { return transport_.extra_attributes(); }

private:
    any_byte_receive_stream transport_;
    std::unique_ptr<detail::text_receiver> receiver_;
};

/// Text, given as UTF-8, to a stream of octets in any encoding.
///
/// Encodings as in text_receive_stream; "utf-16", "utf-32" and "utf-8-sig" begin the stream with a
/// byte order mark. `errors` says what becomes of characters that the encoding does not have, and
/// of octets that are not UTF-8: "strict" throws, "replace" puts '?' in their place, "ignore" drops
/// them.
///
/// Threads       one task sends at a time; close() and extra() by any
/// Cancellation  send() as the stream that is wrapped; one that fails or is cancelled after it has
///               begun counts as having sent the mark
/// Errors        as the stream that is wrapped; unicode_error (nothing was sent); lookup_error,
///               std::invalid_argument (constructor); busy_resource_error
/// Source        AnyIO TextSendStream
class text_send_stream final : public virtual resource, public virtual typed_attribute_provider {
public:
    explicit text_send_stream(any_byte_send_stream transport, std::string_view encoding = "utf-8",
                              std::string_view errors = "strict");
    text_send_stream(text_send_stream&&) noexcept;
    text_send_stream& operator=(text_send_stream&&) noexcept;
    ~text_send_stream() override;

    void send(std::string_view text);

    void close() override;
    attribute_map extra_attributes() const override { return transport_.extra_attributes(); }

private:
    any_byte_send_stream transport_;
    std::unique_ptr<detail::text_sender> sender_;
};

/// Both directions. Source: AnyIO TextStream
class text_stream final : public virtual resource, public virtual typed_attribute_provider {
public:
    explicit text_stream(any_byte_stream transport, std::string_view encoding = "utf-8",
                         std::string_view errors = "strict");
    text_stream(text_stream&&) noexcept;
    text_stream& operator=(text_stream&&) noexcept;
    ~text_stream() override;

    std::string receive();
    auto begin() { return detail::received_items<text_stream, std::string>(*this); }
    std::default_sentinel_t end() { return {}; }
    void send(std::string_view text);
    void send_eof() { transport_.send_eof(); }

    void close() override;
    attribute_map extra_attributes() const override { return transport_.extra_attributes(); }

private:
    any_byte_stream transport_;
    std::unique_ptr<detail::text_receiver> receiver_;
    std::unique_ptr<detail::text_sender> sender_;
};

} // namespace weft
