#pragma once

#include <weft/streams/byte_stream.hpp>

#include <concepts>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {

using bytes_source = unreliable_object_receive_stream<bytes>;
using bytes_sink = unreliable_object_send_stream<bytes>;
using bytes_pair = unreliable_object_stream<bytes>;

// What makes one kind of stream look like the other. The last argument only chooses.
std::unique_ptr<byte_receive_stream> adapt(object_receive_stream<bytes>&, byte_receive_stream*);
std::unique_ptr<byte_send_stream> adapt(object_send_stream<bytes>&, byte_send_stream*);
std::unique_ptr<byte_stream> adapt(object_stream<bytes>&, byte_stream*);
std::unique_ptr<bytes_source> adapt(byte_receive_stream&, bytes_source*);
std::unique_ptr<bytes_sink> adapt(byte_send_stream&, bytes_sink*);
std::unique_ptr<bytes_pair> adapt(byte_stream&, bytes_pair*);

template <class Stream, class Interface>
concept fits_as = std::derived_from<Stream, Interface> ||
                  requires(Stream& stream) { adapt(stream, static_cast<Interface*>(nullptr)); };

/// A stream behind its interface: borrowed or owned, adapted if it is of the other kind.
template <class Interface> class held_stream {
public:
    template <class Stream> explicit held_stream(Stream& borrowed) { place(borrowed); }
    template <class Stream> explicit held_stream(std::unique_ptr<Stream> owned) {
        if (!owned) throw std::invalid_argument("there is no stream in this unique_ptr");
        place(*owned);
        owned_ = std::move(owned);
    }
    held_stream(held_stream&& other) noexcept
        : target_(std::exchange(other.target_, nullptr)), owned_(std::move(other.owned_)),
          adapter_(std::move(other.adapter_)) {}
    held_stream& operator=(held_stream&& other) noexcept {
        target_ = std::exchange(other.target_, nullptr);
        adapter_ = std::move(other.adapter_);
        owned_ = std::move(other.owned_);
        return *this;
    }
    ~held_stream() = default;

    /// Errors: closed_resource_error after it was moved from.
    Interface* operator->() const {
        if (target_ == nullptr) throw closed_resource_error();
        return target_;
    }
    explicit operator bool() const { return target_ != nullptr; }

private:
    template <class Stream> void place(Stream& stream) {
        if constexpr (std::derived_from<Stream, Interface>) {
            target_ = &stream;
        } else {
            adapter_ = adapt(stream, static_cast<Interface*>(nullptr));
            target_ = adapter_.get();
        }
    }

    Interface* target_ = nullptr;
    std::unique_ptr<resource> owned_;
    std::unique_ptr<Interface> adapter_; // destroyed first: it refers to what is owned
};

/// Closing, attributes and construction, the same for all holders.
template <class Interface>
class stream_holder : public virtual resource, public virtual typed_attribute_provider {
public:
    void close() override {
        if (held_) held_->close();
    }
    attribute_map extra_attributes() const override {
        return held_ ? held_->extra_attributes() : attribute_map();
    }

protected:
    template <class Given> static held_stream<Interface> hold(Given&& given) {
        if constexpr (std::is_lvalue_reference_v<Given>)
            return held_stream<Interface>(given);
        else
            return held_stream<Interface>(std::make_unique<Given>(std::move(given)));
    }
    template <class Stream> static held_stream<Interface> hold(std::unique_ptr<Stream> owned) {
        return held_stream<Interface>(std::move(owned));
    }
    explicit stream_holder(held_stream<Interface> held) : held_(std::move(held)) {}
    stream_holder(stream_holder&&) noexcept = default;
    stream_holder& operator=(stream_holder&&) noexcept = default;

    held_stream<Interface> held_;
};

template <class T> struct held_type {
    using type = std::remove_reference_t<T>;
};
template <class T> struct held_type<std::unique_ptr<T>> {
    using type = T;
};

/// What a holder takes: an lvalue to borrow, an rvalue or a unique_ptr to own, but not itself
/// moved.
template <class Given, class Interface, class Holder>
concept held_as = fits_as<typename held_type<Given>::type, Interface> &&
                  !std::is_const_v<std::remove_reference_t<Given>> && !std::same_as<Given, Holder>;

} // namespace detail

/// Any stream that octets can be received from, a byte stream or an object stream of `bytes`.
///
/// An lvalue is borrowed and must stay where it is; an rvalue or a unique_ptr is owned. close()
/// reaches either; destruction only what is owned. Of an object that is longer than what was asked
/// for, the rest is given next; so one task receives at a time, whatever the object stream allows.
///
/// Threads, cancellation, errors  as the stream that is held; closed_resource_error once moved from
/// Source                         AnyIO AnyByteReceiveStream
class any_byte_receive_stream final : public byte_receive_stream,
                                      public detail::stream_holder<byte_receive_stream> {
public:
    template <detail::held_as<byte_receive_stream, any_byte_receive_stream> Given>
    any_byte_receive_stream(Given&& stream) : stream_holder(hold(std::forward<Given>(stream))) {}

    std::size_t receive_some(buffer target) override { return held_->receive_some(target); }
    bytes receive(std::size_t max_bytes = default_chunk) override {
        return held_->receive(max_bytes);
    }
};

/// Any stream that octets can be sent to. Holds as any_byte_receive_stream does; where there are no
/// octets an object stream is sent nothing. Source: AnyIO AnyByteSendStream
class any_byte_send_stream final : public byte_send_stream,
                                   public detail::stream_holder<byte_send_stream> {
public:
    template <detail::held_as<byte_send_stream, any_byte_send_stream> Given>
    any_byte_send_stream(Given&& stream) : stream_holder(hold(std::forward<Given>(stream))) {}

    void send(bytes_view data) override { held_->send(data); }
    void send(std::span<bytes_view const> parts) override { held_->send(parts); }
};

/// Any stream for octets in both directions. Holds as any_byte_receive_stream does. Source: AnyIO
/// AnyByteStream
class any_byte_stream final : public byte_stream, public detail::stream_holder<byte_stream> {
public:
    template <detail::held_as<byte_stream, any_byte_stream> Given>
    any_byte_stream(Given&& stream) : stream_holder(hold(std::forward<Given>(stream))) {}

    std::size_t receive_some(buffer target) override { return held_->receive_some(target); }
    bytes receive(std::size_t max_bytes = default_chunk) override {
        return held_->receive(max_bytes);
    }
    void send(bytes_view data) override { held_->send(data); }
    void send(std::span<bytes_view const> parts) override { held_->send(parts); }
    void send_eof() override { held_->send_eof(); }
};

/// Any stream of chunks of octets, reliable or not. Holds as any_byte_receive_stream does. Source:
/// AnyIO AnyUnreliableByteReceiveStream
class any_unreliable_byte_receive_stream final
    : public unreliable_object_receive_stream<bytes>,
      public detail::stream_holder<detail::bytes_source> {
public:
    template <detail::held_as<detail::bytes_source, any_unreliable_byte_receive_stream> Given>
    any_unreliable_byte_receive_stream(Given&& stream)
        : stream_holder(hold(std::forward<Given>(stream))) {}

    bytes receive() override { return held_->receive(); }
};

/// Any stream that takes chunks of octets, reliable or not. Holds as any_byte_receive_stream does.
/// Source: AnyIO AnyUnreliableByteSendStream
class any_unreliable_byte_send_stream final : public unreliable_object_send_stream<bytes>,
                                              public detail::stream_holder<detail::bytes_sink> {
public:
    template <detail::held_as<detail::bytes_sink, any_unreliable_byte_send_stream> Given>
    any_unreliable_byte_send_stream(Given&& stream)
        : stream_holder(hold(std::forward<Given>(stream))) {}

    void send(bytes chunk) override { held_->send(std::move(chunk)); }
};

/// Any stream of chunks of octets in both directions. Holds as any_byte_receive_stream does.
/// Source: AnyIO AnyUnreliableByteStream
class any_unreliable_byte_stream final : public unreliable_object_stream<bytes>,
                                         public detail::stream_holder<detail::bytes_pair> {
public:
    template <detail::held_as<detail::bytes_pair, any_unreliable_byte_stream> Given>
    any_unreliable_byte_stream(Given&& stream)
        : stream_holder(hold(std::forward<Given>(stream))) {}

    bytes receive() override { return held_->receive(); }
    void send(bytes chunk) override { held_->send(std::move(chunk)); }
};

} // namespace weft
