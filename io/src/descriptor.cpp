#include <weft/io/descriptor.hpp>

#include <unistd.h>

namespace weft {

// Linux gives the number back also when close(2) fails, EINTR included: never retried.
void unique_fd::reset(int fd) noexcept {
    int const old = std::exchange(fd_, fd);
    if (old >= 0 && old != fd) ::close(old);
}

} // namespace weft
