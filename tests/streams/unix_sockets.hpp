#pragma once

#include "sockets.hpp"

#include <weft/io/path.hpp>
#include <weft/io/temp.hpp>
#include <weft/streams/unix_socket.hpp>

#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/// What tests of UNIX sockets share.
namespace weft::test {

struct unix_connection {
    unix_socket_stream here;
    unix_socket_stream there;
};

inline std::pair<unique_fd, unique_fd> make_socket_pair(int type) {
    int fds[2];
    if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) != 0)
        throw std::system_error(errno, std::system_category(), "socketpair");
    return {unique_fd(fds[0]), unique_fd(fds[1])};
}

inline unix_connection connect_unix_pair() {
    auto [here, there] = make_socket_pair(SOCK_STREAM);
    return {unix_socket_stream::from_socket(here), unix_socket_stream::from_socket(there)};
}

/// A directory that goes when the test ends, and names in it.
class socket_directory {
public:
    path operator/(path const& name) const { return directory_.name() / name; }

private:
    temporary_directory directory_;
};

inline std::vector<unique_fd> open_some(std::size_t count) {
    std::vector<unique_fd> result;
    for (std::size_t place = 0; place < count; ++place)
        result.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    return result;
}

inline std::vector<int> numbers_of(std::vector<unique_fd> const& fds) {
    std::vector<int> result;
    for (unique_fd const& fd : fds)
        result.push_back(fd.get());
    return result;
}

/// The errno in the std::system_error that the call throws, and whether its text names the thing; 0
/// if it throws none.
template <class Call> int error_of(Call&& call, std::string const& named = {}) {
    try {
        call();
    } catch (std::system_error const& failure) {
        check(std::string(failure.what()).find(named) != std::string::npos,
              std::string("the error names ") + named + ": " + failure.what());
        return failure.code().value();
    }
    return 0;
}

} // namespace weft::test
