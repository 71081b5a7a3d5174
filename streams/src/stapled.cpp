#include <weft/streams/stapled.hpp>

namespace weft {

void stapled_byte_stream::close() {
    if (receive_) detail::close_both(send_, receive_, closed_);
}

attribute_map stapled_byte_stream::extra_attributes() const {
    if (!receive_) return {};
    return send_.extra_attributes().update(receive_->extra_attributes());
}

namespace detail {

void require_open(closed_mark const& closed) {
    // Relaxed: it orders nothing; the halves have their own locks.
    if (!closed || closed->load(std::memory_order_relaxed)) throw closed_resource_error();
}

void close_both(resource& first, std::shared_ptr<resource> const second, closed_mark const& closed) {
    closed->store(true, std::memory_order_relaxed); // require_open()
    std::exception_ptr failure;
    try {
        first.close();
    } catch (...) { // thrown when both are closed
        failure = std::current_exception();
    }
    try {
        second->close();
    } catch (...) {
        if (!failure) throw;
    }
    if (failure) std::rethrow_exception(failure);
}

} // namespace detail

} // namespace weft
