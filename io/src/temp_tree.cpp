#include "temp_tree.hpp"

#include "path_call.hpp"

#include <weft/io/descriptor.hpp>

#include <cerrno>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace weft::detail {

namespace {

constexpr int directory_flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

bool is_dot(char const* name) {
    return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0;
}

// A directory that its owner may not read or search is made readable: it is to be removed. O_PATH
// needs no such right, and holds on to the directory: whatever somebody may put in its place
// meanwhile, a link out of here above all, keeps its mode. fchmod(2) takes no such descriptor, but
// /proc has a name for it; fchmodat2(2), which needs no /proc, came with Linux 6.6.
int open_directory(int parent, char const* name) {
    int const fd = ::openat(parent, name, directory_flags);
    if (fd >= 0 || errno != EACCES) return fd;
    unique_fd const found(::openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!found) return -1;
    std::string const known = "/proc/self/fd/" + std::to_string(found.get());
    if (::chmod(known.c_str(), S_IRWXU) != 0) return -1;
    return ::openat(found.get(), ".", directory_flags);
}

} // namespace

void tree_removal::note(int error, path const& where) {
    if (error != ENOENT && !failure_)
        failure_ = std::make_exception_ptr(path_error(error, "remove", where));
}

bool tree_removal::enter(int parent, std::string const& name, path const& where) {
    int const fd = open_directory(parent, name.c_str());
    if (fd < 0) return false;
    ::DIR* const stream = ::fdopendir(fd);
    if (stream == nullptr) {
        int const error = errno;
        ::close(fd);
        errno = error;
        return false;
    }
    levels_.push_back({std::unique_ptr<::DIR, closer>(stream), where, name});
    return true;
}

void tree_removal::leave() {
    level const done = std::move(levels_.back());
    levels_.pop_back();
    int const parent = levels_.empty() ? AT_FDCWD : ::dirfd(levels_.back().stream.get());
    if (::unlinkat(parent, done.name.c_str(), AT_REMOVEDIR) != 0) note(errno, done.where);
}

void tree_removal::remove_name(level const& in, char const* name) {
    int const parent = ::dirfd(in.stream.get());
    if (::unlinkat(parent, name, 0) == 0) return;
    if (errno == EACCES && ::fchmod(parent, S_IRWXU) == 0 && ::unlinkat(parent, name, 0) == 0)
        return;
    int const error = errno; // EISDIR on Linux, EPERM as POSIX has it
    path const where = in.where / name;
    if (error != EISDIR && error != EPERM) return note(error, where);
    if (!enter(parent, name, where)) note(errno == ENOTDIR ? error : errno, where);
}

bool tree_removal::remove_some(std::size_t names) {
    if (!begun_) {
        begun_ = true;
        if (!enter(AT_FDCWD, root_.as_posix(), root_)) note(errno, root_);
    }
    while (!levels_.empty() && names-- > 0) {
        errno = 0;
        ::dirent const* const entry = ::readdir(levels_.back().stream.get());
        if (entry == nullptr) {
            if (errno != 0) note(errno, levels_.back().where);
            leave();
        } else if (!is_dot(entry->d_name)) {
            remove_name(levels_.back(), std::string(entry->d_name).c_str());
        }
    }
    return levels_.empty();
}

} // namespace weft::detail
