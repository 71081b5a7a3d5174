#pragma once

#include <weft/io/bytes.hpp>

#include <cstddef>
#include <memory>
#include <utility>

namespace weft::detail {

/// Octets that come in at one end and leave at the other, in one piece of memory.
///
/// room() gives space at the end that a stream may fill while others look at what is there, as long
/// as nobody else asks for room; grew() adds what came. Memory is not cleared.
///
/// Threads  as a value, but for the above
class octet_queue {
public:
    octet_queue() = default;
    octet_queue(octet_queue&& other) noexcept
        : memory_(std::move(other.memory_)), capacity_(std::exchange(other.capacity_, 0)),
          begin_(std::exchange(other.begin_, 0)), end_(std::exchange(other.end_, 0)) {}
    octet_queue& operator=(octet_queue&& other) noexcept {
        memory_ = std::move(other.memory_);
        capacity_ = std::exchange(other.capacity_, 0);
        begin_ = std::exchange(other.begin_, 0);
        end_ = std::exchange(other.end_, 0);
        return *this;
    }
    ~octet_queue() = default;

    std::size_t size() const { return end_ - begin_; }
    bool empty() const { return begin_ == end_; }
    std::size_t capacity() const { return capacity_; }
    bytes_view view() const { return bytes_view(memory_.get() + begin_, size()); }

    /// All the space behind what is there, at least so much.
    buffer room(std::size_t least);
    void grew(std::size_t count) { end_ += count; }
    void append(bytes_view);

    void consume(std::size_t count) {
        begin_ += count;
        if (begin_ == end_) begin_ = end_ = 0;
    }
    /// consume() of what fits into the target; gives its length.
    std::size_t take(buffer target);
    bytes take(std::size_t count);

    void clear() { begin_ = end_ = 0; }
    /// Gives memory back if it holds nothing and is larger than so much.
    void shrink(std::size_t most) {
        if (empty() && capacity_ > most) *this = octet_queue();
    }

private:
    std::unique_ptr<std::byte[]> memory_;
    std::size_t capacity_ = 0;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

} // namespace weft::detail
