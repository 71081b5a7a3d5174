#include <weft/io/path.hpp>

#include "path_call.hpp"

#include <weft/io/descriptor.hpp>

#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

namespace weft {

namespace {

using detail::act_in_thread;
using detail::system_name;
using detail::throw_path_error;

void expect_success(int result, char const* what, path const& name) {
    if (result != 0) throw_path_error(errno, what, name);
}

bool is_directory(path const& name) {
    struct ::stat status {};
    return ::stat(system_name(name), &status) == 0 && S_ISDIR(status.st_mode);
}

void make_directory(path const& name, mkdir_options const& how) {
    if (::mkdir(system_name(name), ::mode_t(how.mode)) == 0) return;
    int const error = errno;
    if (error == ENOENT && how.parents && name.parent() != name) {
        make_directory(name.parent(), {.parents = true, .exist_ok = true});
        return make_directory(name, {.mode = how.mode, .exist_ok = how.exist_ok});
    }
    // Not EEXIST alone: where a directory cannot be made, another error may come first.
    if (!how.exist_ok || !is_directory(name)) throw_path_error(error, "make the directory", name);
}

void touch_file(path const& name, touch_options const& how) {
    if (how.exist_ok && ::utimensat(AT_FDCWD, system_name(name), nullptr, 0) == 0) return;
    int const flags = O_CREAT | O_WRONLY | O_CLOEXEC | O_NONBLOCK | (how.exist_ok ? 0 : O_EXCL);
    unique_fd const made(::open(system_name(name), flags, ::mode_t(how.mode)));
    if (!made) throw_path_error(errno, "touch", name);
}

void rename_to(path const& from, path const& to) {
    if (::rename(system_name(from), system_name(to)) != 0)
        throw_path_error(errno, "rename to '" + to.as_posix() + "' what is", from);
}

} // namespace

void path::chmod(unsigned mode, follow_options const& how) const {
    int const flags = how.follow_symlinks ? 0 : AT_SYMLINK_NOFOLLOW;
    act_in_thread(limiter_, [&] {
        expect_success(::fchmodat(AT_FDCWD, system_name(*this), ::mode_t(mode), flags),
                       "change the mode of", *this);
    });
}

void path::lchmod(unsigned mode) const { chmod(mode, {.follow_symlinks = false}); }

void path::mkdir(mkdir_options const& how) const {
    act_in_thread(limiter_, [&] { make_directory(*this, how); });
}

void path::rmdir() const {
    act_in_thread(limiter_, [&] {
        expect_success(::rmdir(system_name(*this)), "remove the directory", *this);
    });
}

void path::touch(touch_options const& how) const {
    act_in_thread(limiter_, [&] { touch_file(*this, how); });
}

void path::unlink(unlink_options const& how) const {
    act_in_thread(limiter_, [&] {
        if (::unlink(system_name(*this)) == 0 || (errno == ENOENT && how.missing_ok)) return;
        throw_path_error(errno, "unlink", *this);
    });
}

path path::rename(path const& target) const {
    act_in_thread(limiter_, [&] { rename_to(*this, target); });
    return keep(target);
}

path path::replace(path const& target) const { return rename(target); }

void path::symlink_to(path const& target, symlink_options const&) const {
    act_in_thread(limiter_, [&] {
        expect_success(::symlink(system_name(target), system_name(*this)), "make the link", *this);
    });
}

void path::hardlink_to(path const& target) const {
    act_in_thread(
        limiter_, [&] { // not link(2): whether that follows a symbolic link is open in POSIX
            expect_success(::linkat(AT_FDCWD, system_name(target), AT_FDCWD, system_name(*this), 0),
                           "make the link", *this);
        });
}

} // namespace weft
