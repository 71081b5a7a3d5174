#include "temp_tree.hpp"

#include "path_call.hpp"

#include <weft/io/descriptor.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace weft::detail {

namespace {

constexpr std::size_t open_levels = 32; // a guess: few trees are deeper
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

::DIR* read_directory(int fd) {
    if (fd < 0) return nullptr;
    ::DIR* const stream = ::fdopendir(fd);
    if (stream == nullptr) {
        int const error = errno;
        ::close(fd);
        errno = error;
    }
    return stream;
}

} // namespace

void tree_removal::note(int error, std::string const& name) {
    if (error == ENOENT) return;
    if (error == EMFILE || error == ENFILE || error == ENOMEM) fell_short_ = true;
    if (failure_) return;
    path where;
    for (level const& each : levels_)
        where /= each.name;
    failure_ = std::make_exception_ptr(path_error(error, "remove", where / name));
}

bool tree_removal::enter(int parent, std::string const& name) {
    if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0) return true; // nothing to enter
    std::unique_ptr<::DIR, closer> stream(read_directory(open_directory(parent, name.c_str())));
    if (!stream) return false;
    levels_.push_back({std::move(stream), name});
    close_upper();
    return true;
}

// One more was opened: those that are far up wait without a descriptor.
void tree_removal::close_upper() {
    if (levels_.size() <= open_levels) return;
    level& upper = levels_[levels_.size() - 1 - open_levels];
    struct ::stat status {};
    if (!upper.stream || ::fstat(::dirfd(upper.stream.get()), &status) != 0) return;
    upper.device = status.st_dev;
    upper.inode = status.st_ino;
    upper.stream.reset();
}

// Opens the last level anew, from the directory in it that is done. Somebody may have moved that elsewhere: then
// its parent is another one, in which nothing is ours.
bool tree_removal::come_back(level const& from) {
    level& parent = levels_.back();
    std::unique_ptr<::DIR, closer> stream(
        read_directory(::openat(::dirfd(from.stream.get()), "..", directory_flags)));
    if (!stream) return false;
    struct ::stat status {};
    if (::fstat(::dirfd(stream.get()), &status) != 0) return false;
    errno = ESTALE;
    if (status.st_dev != parent.device || status.st_ino != parent.inode) return false;
    parent.stream = std::move(stream);
    return true;
}

void tree_removal::leave() {
    level const done = std::move(levels_.back());
    levels_.pop_back();
    if (!levels_.empty() && !levels_.back().stream && !come_back(done)) {
        note(errno == ENOENT ? ESTALE : errno, done.name); // what is above stays
        return levels_.clear();
    }
    int const parent = levels_.empty() ? AT_FDCWD : ::dirfd(levels_.back().stream.get());
    if (::unlinkat(parent, done.name.c_str(), AT_REMOVEDIR) == 0) return;
    note(errno, done.name);
    if (!levels_.empty()) levels_.back().left.push_back(done.name);
}

void tree_removal::remove_name(char const* name) {
    level const& in = levels_.back();
    int const parent = ::dirfd(in.stream.get());
    if (::unlinkat(parent, name, 0) == 0) return;
    if (errno == EACCES && ::fchmod(parent, S_IRWXU) == 0 && ::unlinkat(parent, name, 0) == 0)
        return;
    int const error = errno; // EISDIR on Linux, EPERM as POSIX has it
    if (error != EISDIR && error != EPERM) return note(error, name);
    // A directory that was opened anew gives also those that have been tried.
    if (std::find(in.left.begin(), in.left.end(), name) != in.left.end()) return;
    if (!enter(parent, name)) note(errno == ENOTDIR ? error : errno, name);
}

bool tree_removal::remove_some(std::size_t names) {
    if (!begun_) {
        begun_ = true;
        if (!enter(AT_FDCWD, root_.as_posix())) note(errno, root_.as_posix());
    }
    while (!levels_.empty() && names-- > 0) {
        errno = 0;
        ::dirent const* const entry = ::readdir(levels_.back().stream.get());
        if (entry == nullptr) {
            if (errno != 0) note(errno, {});
            leave();
        } else if (!is_dot(entry->d_name)) {
            remove_name(std::string(entry->d_name).c_str());
        }
    }
    return levels_.empty();
}

} // namespace weft::detail
