#include <weft/io/detail/frame.hpp>

#include <cstring>

namespace weft::detail {

void frame_writer::write(void const* data, std::size_t size) {
    if (size > largest_frame - data_.size())
        throw std::length_error("a message to or from a worker process would be longer than " +
                                std::to_string(largest_frame) + " bytes");
    data_.append(static_cast<char const*>(data), size);
}

void frame_writer::write_text(std::string const& text) {
    write_number(text.size());
    write(text.data(), text.size());
}

void frame_reader::read(void* target, std::size_t size) {
    expect(size);
    if (size != 0) std::memcpy(target, data_.data(), size);
    data_ = data_.subview(size);
}

std::uint64_t frame_reader::read_number() {
    std::uint64_t number = 0;
    read(&number, sizeof number);
    return number;
}

std::string frame_reader::read_text() {
    std::uint64_t const size = read_number();
    expect(size);
    std::string text(std::size_t(size), '\0');
    read(text.data(), text.size());
    return text;
}

void frame_reader::expect(std::uint64_t elements) const {
    if (elements > data_.size())
        throw std::runtime_error(
            "a message of a worker process ends too early: " + std::to_string(elements) +
            " more were announced, " + std::to_string(data_.size()) + " bytes are left");
}

} // namespace weft::detail
