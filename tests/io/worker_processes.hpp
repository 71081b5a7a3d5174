#pragma once

#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/detail/frame.hpp>
#include <weft/io/to_process.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <functional>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/// What tests of worker processes share.
namespace weft::test {

/// A run; also: no worker process is left, dead or alive.
inline void run_with_processes(std::function<void()> const& body) {
    run_test({.seeds = {}}, body);
    ::siginfo_t info{};
    int const found = ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
    CHECK(found == -1);
    CHECK(errno == ECHILD);
}

/// It has ended and was reaped. Its number may be another process's by then, but no child's of ours.
inline bool is_gone(pid_t child) {
    return ::waitpid(child, nullptr, WNOHANG) == -1 && errno == ECHILD;
}

inline constexpr bool under_sanitizer = slowdown != 1;

inline std::string text_of_failure(std::function<void()> const& call) {
    try {
        call();
    } catch (std::exception const& failure) {
        return failure.what();
    }
    return {};
}

inline int square(int number) { return number * number; }

/// Which process a call runs in.
inline pid_t worker() {
    return to_process::run_sync([] { return ::getpid(); });
}

/// Would be longer than a frame; its memory is not looked at.
struct immense {
    template <class Archive> void save(Archive& archive) const {
        archive(cereal::binary_data(this, detail::largest_frame + 1));
    }
    template <class Archive> void load(Archive&) {}
};

/// An octet that this process and its workers share.
class shared_flag {
public:
    shared_flag() : file_(int(::memfd_create("flag", 0))) {
        check(::ftruncate(file_.get(), 1) == 0, "a byte");
    }
    std::string path() const {
        return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(file_.get());
    }
    bool is_set() const {
        char octet = 0;
        return ::pread(file_.get(), &octet, 1, 0) == 1 && octet == 'x';
    }
    static bool is_set(std::string const& path) {
        unique_fd const file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        char octet = 0;
        return ::pread(file.get(), &octet, 1, 0) == 1 && octet == 'x';
    }
    static void set(std::string const& path) {
        unique_fd const file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
        (void)!::pwrite(file.get(), "x", 1, 0);
    }

private:
    unique_fd file_;
};

} // namespace weft::test
