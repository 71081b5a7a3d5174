#include "unix_name.hpp"

#include <weft/io/detail/raw_address.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/to_thread.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace weft::detail {

namespace {

using namespace std::chrono_literals;

constexpr duration shortest_pause = 1ms;
constexpr duration longest_pause = 50ms;

// Only a socket: what else is there may be somebody's data, and makes bind() fail.
void remove_old_socket(socket_address const& at) {
    struct ::stat found {};
    if (::lstat(at.path().c_str(), &found) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return; // bind() tells the latter
        throw_unix_error(errno, "stat", at);
    }
    if (S_ISSOCK(found.st_mode) && ::unlink(at.path().c_str()) != 0 && errno != ENOENT)
        throw_unix_error(errno, "unlink", at);
}

void bind_in_this_thread(int fd, socket_address const& to, std::optional<::mode_t> mode) {
    bool const has_file = !to.is_abstract();
    if (has_file) remove_old_socket(to);
    // The file gets what the socket has, less the umask: from its beginning not more than asked for.
    if (has_file && mode) ::fchmod(fd, *mode);
    raw_address const address(to);
    if (::bind(fd, address.get(), address.length) != 0) throw_unix_error(errno, "bind", to);
    if (has_file && mode && ::chmod(to.path().c_str(), *mode) != 0)
        throw_unix_error(errno, "chmod", to);
}

} // namespace

socket_address unix_address(path const& name) {
    std::string const& text = name.as_posix();
    if (text == ".") throw std::invalid_argument("a UNIX socket must have a name"); // or an empty one
    if (text.starts_with('\0')) return socket_address::unix_abstract(text.substr(1));
    return socket_address::unix_path(text);
}

unique_fd make_unix_socket(int type, std::optional<socket_address> const& name) {
    unique_fd fd(::socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd) return fd;
    if (name) throw_unix_error(errno, "socket for", *name);
    throw std::system_error(errno, std::system_category(), "socket");
}

void bind_unix_socket(unique_fd const& fd, socket_address const& to,
                      std::optional<::mode_t> mode) {
    to_thread::run_sync([&] { bind_in_this_thread(fd.get(), to, mode); });
}

// EAGAIN is a full backlog here, and nothing tells when it has room: EPOLLOUT does not.
void connect_unix_socket(unique_fd const& fd, socket_address const& to) {
    raw_address const address(to);
    duration pause = shortest_pause;
    while (::connect(fd.get(), address.get(), address.length) != 0) {
        int const error = errno;
        if (error == EINTR) continue;
        if (error != EAGAIN) throw_unix_error(error, "connect to", to);
        sleep(pause);
        pause = std::min(2 * pause, longest_pause);
    }
}

void throw_unix_error(int error, char const* call, socket_address const& with) {
    throw std::system_error(error, std::system_category(),
                            std::string(call) + " " + with.to_string());
}

} // namespace weft::detail
