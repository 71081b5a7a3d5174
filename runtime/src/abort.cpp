#include "abort.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace weft::detail {

void die(char const* format, ...) noexcept {
    std::fputs("weft: ", stderr);
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::fputc('\n', stderr);
    std::abort();
}

} // namespace weft::detail
