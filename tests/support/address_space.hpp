#pragma once

#include <cstdio>
#include <cstdlib>

#include <sys/resource.h>

namespace weft::test {

/// From here on the process gets so many bytes more, and no stack that does not fit.
inline void allow_more_address_space(rlim_t bytes) {
    long pages = 0;
    std::FILE* const statm = std::fopen("/proc/self/statm", "r");
    if (statm == nullptr || std::fscanf(statm, "%ld", &pages) != 1) std::abort();
    std::fclose(statm);
    rlimit const limit{rlim_t(pages) * 4096 + bytes, RLIM_INFINITY};
    ::setrlimit(RLIMIT_AS, &limit);
}

} // namespace weft::test
