#include <weft/streams/stapled.hpp>

namespace weft {

void stapled_byte_stream::close() {
    detail::close_both(send_, receive_);
}

namespace detail {

void close_both(resource& first, resource& second) {
    std::exception_ptr failure;
    try {
        first.close();
    } catch (...) { // thrown when both are closed
        failure = std::current_exception();
    }
    try {
        second.close();
    } catch (...) {
        if (!failure) throw;
    }
    if (failure) std::rethrow_exception(failure);
}

} // namespace detail

} // namespace weft
