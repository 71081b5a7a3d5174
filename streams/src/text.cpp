#include <weft/streams/text.hpp>

#include "text_codec.hpp"

#include <weft/runtime/detail/parking.hpp>
#include <weft/streams/detail/closable_guard.hpp>

#include <vector>

namespace weft {

namespace detail {

namespace {

constexpr std::size_t chunk = 16384;

} // namespace

class text_receiver {
public:
    text_receiver(std::string_view name, std::string_view errors)
        : decoder_(encoding::parse(name), parse_on_error(errors)) {}

    std::string receive(byte_receive_stream& from) {
        auto const inside = reading_.enter();
        if (decoder_.has_error()) {
            enter_blocking_call("text receive");
            return decoder_.decode({});
        }
        if (!space_) space_ = std::make_unique_for_overwrite<std::byte[]>(chunk);
        for (;;) {
            std::size_t const count = from.receive_some(buffer(space_.get(), chunk));
            std::string text = count == 0
                                   ? decoder_.finish()
                                   : decoder_.decode(bytes_view(space_.get(), count).text());
            if (!text.empty()) return text;
            if (count == 0) throw end_of_stream();
        }
    }
    void close() noexcept { reading_.close(); }

private:
    closable_guard reading_{"reading from"};
    decoder decoder_;
    std::unique_ptr<std::byte[]> space_;
};

class text_sender {
public:
    text_sender(std::string_view name, std::string_view errors)
        : encoder_(encoding::parse(name), parse_on_error(errors)) {}

    void send(byte_send_stream& to, std::string_view text) {
        auto const inside = writing_.enter();
        std::string const encoded = encoder_.encode(text);
        check_cancellation("text send"); // cancelled before: nothing is on its way
        if (!encoded.empty()) encoder_.sent();
        to.send(bytes_view(encoded));
    }
    void close() noexcept { writing_.close(); }

private:
    closable_guard writing_{"writing to"};
    encoder encoder_;
};

namespace {

template <class Part> Part& part_of(std::unique_ptr<Part> const& part) {
    if (!part) throw closed_resource_error(); // moved from
    return *part;
}

} // namespace

} // namespace detail

text_receive_stream::text_receive_stream(any_byte_receive_stream transport,
                                         std::string_view encoding, std::string_view errors)
    : transport_(std::move(transport)),
      receiver_(std::make_unique<detail::text_receiver>(encoding, errors)) {}
text_receive_stream::text_receive_stream(text_receive_stream&&) noexcept = default;
text_receive_stream& text_receive_stream::operator=(text_receive_stream&&) noexcept = default;
text_receive_stream::~text_receive_stream() = default;

std::string text_receive_stream::receive() {
    return detail::part_of(receiver_).receive(transport_);
}
void text_receive_stream::close() {
    if (receiver_) receiver_->close();
    transport_.close();
}

text_send_stream::text_send_stream(any_byte_send_stream transport, std::string_view encoding,
                                   std::string_view errors)
    : transport_(std::move(transport)),
      sender_(std::make_unique<detail::text_sender>(encoding, errors)) {}
text_send_stream::text_send_stream(text_send_stream&&) noexcept = default;
text_send_stream& text_send_stream::operator=(text_send_stream&&) noexcept = default;
text_send_stream::~text_send_stream() = default;

void text_send_stream::send(std::string_view text) {
    detail::part_of(sender_).send(transport_, text);
}
void text_send_stream::close() {
    if (sender_) sender_->close();
    transport_.close();
}

text_stream::text_stream(any_byte_stream transport, std::string_view encoding,
                         std::string_view errors)
    : transport_(std::move(transport)),
      receiver_(std::make_unique<detail::text_receiver>(encoding, errors)),
      sender_(std::make_unique<detail::text_sender>(encoding, errors)) {}
text_stream::text_stream(text_stream&&) noexcept = default;
text_stream& text_stream::operator=(text_stream&&) noexcept = default;
text_stream::~text_stream() = default;

std::string text_stream::receive() { return detail::part_of(receiver_).receive(transport_); }
void text_stream::send(std::string_view text) { detail::part_of(sender_).send(transport_, text); }
void text_stream::close() {
    if (receiver_) receiver_->close();
    if (sender_) sender_->close();
    transport_.close();
}

} // namespace weft
