#pragma once

#include <exception>
#include <new>

namespace weft::detail {

/// A pointer to the exception that the call gives, whose text takes memory; without any, to the bad_alloc.
template <class Make> std::exception_ptr error_or_bad_alloc(Make&& make) noexcept {
    try {
        return std::make_exception_ptr(make());
    } catch (std::bad_alloc const&) {
        return std::current_exception();
    }
}

} // namespace weft::detail
