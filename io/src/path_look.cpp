#include <weft/io/path.hpp>

#include "path_call.hpp"

#include <weft/io/detail/account_entry.hpp>
#include <weft/sync/error.hpp>

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <vector>

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

namespace weft {

namespace detail {

std::system_error path_error(int error, std::string const& what, path const& where) {
    return {error, std::system_category(), "cannot " + what + " '" + where.as_posix() + "'"};
}

void throw_path_error(int error, std::string const& what, path const& where) {
    throw path_error(error, what, where);
}

bool names_something(path const& name) { return name.as_posix().find('\0') == std::string::npos; }

char const* system_name(path const& name) {
    if (!names_something(name))
        throw std::invalid_argument("a NUL in the path '" + name.as_posix() + "'");
    return name.as_posix().c_str();
}

} // namespace detail

namespace {

using detail::look_in_thread;
using detail::look_up_account;
using detail::system_name;
using detail::throw_path_error;

using file_status = struct ::stat;

int ask(path const& name, bool follow, file_status& status) {
    char const* const known = system_name(name);
    return (follow ? ::stat(known, &status) : ::lstat(known, &status)) == 0 ? 0 : errno;
}

file_status status_of(path const& name, bool follow) {
    file_status status{};
    if (int const error = ask(name, follow, status)) throw_path_error(error, "stat", name);
    return status;
}

// None: there is no such thing (PH5).
std::optional<file_status> status_if_any(path const& name, bool follow) {
    file_status status{};
    if (!detail::names_something(name)) return {};
    int const error = ask(name, follow, status);
    if (error == 0) return status;
    if (error == ENOENT || error == ENOTDIR || error == EBADF || error == ELOOP) return {};
    throw_path_error(error, "stat", name);
}

bool has_type(path const& name, unsigned type, bool follow = true, char const* call = __builtin_FUNCTION()) {
    auto const look = [name, type, follow] {
        auto const status = status_if_any(name, follow);
        return status && (status->st_mode & S_IFMT) == type;
    };
    return look_in_thread(name.limiter(), look, call);
}

bool same_file(file_status const& left, file_status const& right) {
    return left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

bool is_mount_point(path const& name) {
    auto const here = status_if_any(name, false);
    if (!here || S_ISLNK(here->st_mode)) return false;
    auto const above = status_if_any(name / "..", true);
    return above && (above->st_dev != here->st_dev || above->st_ino == here->st_ino);
}

template <class Look> std::optional<std::string> home_in_database(std::string const& user, Look look) {
    return look_up_account<::passwd>("the home directory of '~" + user + "'", look,
                                     [](::passwd const& e) { return std::string(e.pw_dir); });
}

std::optional<std::string> home_of(std::string const& user) {
    return home_in_database(user, [&](auto... place) { return ::getpwnam_r(user.c_str(), place...); });
}

// HOME first, as the shell does.
std::optional<std::string> home_of_process() {
    if (char const* const home = std::getenv("HOME")) return home;
    return home_in_database("", [](auto... place) { return ::getpwuid_r(::getuid(), place...); });
}

path expanded(path const& name) {
    std::vector<std::string> const parts = name.parts();
    if (parts.empty() || !parts.front().starts_with('~')) return name;
    std::string const user = parts.front().substr(1);
    std::optional<std::string> const home = user.empty() ? home_of_process() : home_of(user);
    if (!home || home->empty() || home->starts_with('~'))
        throw std::logic_error("the home directory of '" + parts.front() + "' is not known");
    path result = *home;
    for (std::size_t i = 1; i < parts.size(); ++i)
        result /= parts[i];
    return result;
}

path current_directory() {
    std::vector<char> space(1024);
    while (::getcwd(space.data(), space.size()) == nullptr) {
        if (errno != ERANGE)
            throw std::system_error(errno, std::system_category(), "no current directory");
        space.resize(space.size() * 2);
    }
    return space.data();
}

path target_of_link(path const& link) {
    char const* const known = system_name(link);
    std::string target(256, '\0');
    for (;;) {
        ssize_t const length = ::readlink(known, target.data(), target.size());
        if (length < 0) throw_path_error(errno, "read the link", link);
        if (std::size_t(length) < target.size()) {
            target.resize(std::size_t(length));
            return target;
        }
        target.resize(target.size() * 2);
    }
}

} // namespace

// -- Looking --------------------------------------------------------------------------------------

struct ::stat path::stat(follow_options const& how) const {
    return look_in_thread(
        limiter_, [name = *this, follow = how.follow_symlinks] { return status_of(name, follow); });
}

struct ::stat path::lstat() const {
    return stat({.follow_symlinks = false});
}

bool path::exists(follow_options const& how) const {
    return look_in_thread(limiter_, [name = *this, follow = how.follow_symlinks] {
        return status_if_any(name, follow).has_value();
    });
}

bool path::is_file(follow_options const& how) const {
    return has_type(*this, S_IFREG, how.follow_symlinks);
}

bool path::is_dir(follow_options const& how) const {
    return has_type(*this, S_IFDIR, how.follow_symlinks);
}

bool path::is_symlink() const { return has_type(*this, S_IFLNK, false); }

bool path::is_fifo() const { return has_type(*this, S_IFIFO); }

bool path::is_socket() const { return has_type(*this, S_IFSOCK); }

bool path::is_block_device() const { return has_type(*this, S_IFBLK); }

bool path::is_char_device() const { return has_type(*this, S_IFCHR); }

bool path::is_mount() const {
    return look_in_thread(limiter_, [name = *this] { return is_mount_point(name); });
}

std::string path::owner(follow_options const& how) const {
    return look_in_thread(limiter_, [name = *this, follow = how.follow_symlinks] {
        ::uid_t const id = status_of(name, follow).st_uid;
        std::string const what = "the owner of '" + name.as_posix() + "', " + std::to_string(id);
        auto const found =
            look_up_account<::passwd>(what, [id](auto... place) { return ::getpwuid_r(id, place...); },
                                      [](::passwd const& entry) { return std::string(entry.pw_name); });
        if (!found) throw lookup_error(what + ", is no user that is known here");
        return *found;
    });
}

std::string path::group(follow_options const& how) const {
    return look_in_thread(limiter_, [name = *this, follow = how.follow_symlinks] {
        ::gid_t const id = status_of(name, follow).st_gid;
        std::string const what = "the group of '" + name.as_posix() + "', " + std::to_string(id);
        auto const found =
            look_up_account<::group>(what, [id](auto... place) { return ::getgrgid_r(id, place...); },
                                     [](::group const& entry) { return std::string(entry.gr_name); });
        if (!found) throw lookup_error(what + ", is no group that is known here");
        return *found;
    });
}

bool path::samefile(path const& other) const {
    return look_in_thread(limiter_, [left = *this, right = other] {
        return same_file(status_of(left, true), status_of(right, true));
    });
}

path path::expanduser() const {
    return keep(look_in_thread(limiter_, [name = *this] { return expanded(name); }));
}

// -- Finished first -------------------------------------------------------------------------------

path path::cwd() {
    return detail::act_in_thread(nullptr, [] { return current_directory(); });
}

path path::home() {
    return detail::act_in_thread(nullptr, [] { return expanded("~"); });
}

path path::absolute() const {
    return keep(detail::act_in_thread(
        limiter_, [this] { return is_absolute() ? *this : current_directory() / *this; }));
}

path path::readlink() const {
    return keep(detail::act_in_thread(limiter_, [this] { return target_of_link(*this); }));
}

} // namespace weft
