#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace weft::test {

/// While it exists, the process has room for no more descriptors than `free`.
class few_descriptors {
public:
    explicit few_descriptors(int free) {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        ::rlimit few = before_;
        few.rlim_cur = ::rlim_t(lowest_free_number() + free);
        ::setrlimit(RLIMIT_NOFILE, &few);
    }
    ~few_descriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
    few_descriptors(few_descriptors const&) = delete;
    few_descriptors& operator=(few_descriptors const&) = delete;

private:
    static int lowest_free_number() {
        int const free = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
        ::close(free);
        return free;
    }

    ::rlimit before_{};
};

} // namespace weft::test
