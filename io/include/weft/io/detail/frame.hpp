#pragma once

#include <weft/io/bytes.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace weft::detail {

/// No more goes to a worker process or comes back from it at once: 1 GiB.
inline constexpr std::size_t largest_frame = std::size_t(1) << 30;

/// Puts a message to or from a worker process together. Errors: std::length_error past
/// largest_frame
class frame_writer {
public:
    void write(void const* data, std::size_t size);
    void write_number(std::uint64_t number) { write(&number, sizeof number); }
    void write_text(std::string const& text);

    bytes const& data() const { return data_; }
    void clear() { bytes().swap(data_); }

private:
    bytes data_;
};

/// Takes it apart. Errors: std::runtime_error where the message ends too early; nothing is
/// allocated for a size that cannot be true.
class frame_reader {
public:
    explicit frame_reader(bytes_view data) : data_(data) {}

    void read(void* target, std::size_t size);
    std::uint64_t read_number();
    std::string read_text();

    std::size_t left() const { return data_.size(); }
    /// That so many elements, each of at least one octet, can follow.
    void expect(std::uint64_t elements) const;

private:
    bytes_view data_;
};

} // namespace weft::detail
