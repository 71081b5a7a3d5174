#pragma once

#include <functional>
#include <optional>
#include <string>
#include <system_error>

namespace weft {

class capacity_limiter;

/// The keyword arguments of Python's Path and open(), for designated initializers.

/// follow_symlinks: whether a symbolic link stands for what it points to, or for itself.
struct follow_options {
    bool follow_symlinks = true;
};

/// case_sensitive: none is what the system does, and that is true.
struct match_options {
    std::optional<bool> case_sensitive{};
};

/// recurse_symlinks: whether "**" goes through symbolic links to directories.
struct glob_options {
    std::optional<bool> case_sensitive{};
    bool recurse_symlinks = false;
};

/// walk_up: a way through ".." is fine, too.
struct relative_to_options {
    bool walk_up = false;
};

/// mode: before the umask. parents: also those above that are missing, with the usual mode.
/// exist_ok: a directory may be there already.
struct mkdir_options {
    unsigned mode = 0777;
    bool parents = false;
    bool exist_ok = false;
};

/// mode: of a new file, before the umask. exist_ok: a file may be there; its times become now.
struct touch_options {
    unsigned mode = 0666;
    bool exist_ok = true;
};

/// missing_ok: there may be nothing to unlink.
struct unlink_options {
    bool missing_ok = false;
};

/// strict: what is missing is an error.
struct resolve_options {
    bool strict = false;
};

/// target_is_directory: of no meaning on POSIX.
struct symlink_options {
    bool target_is_directory = false;
};

/// top_down: a directory before those in it, which can then be left out by erasing them from
/// `directories`; else after them. on_error: told of each directory that cannot be read, which is
/// then left out; what it throws ends the walk. follow_symlinks: links to directories are
/// directories; a loop has no end then.
struct walk_options {
    bool top_down = true;
    std::function<void(std::system_error const&)> on_error{};
    bool follow_symlinks = false;
};

/// encoding: as text_receive_stream has them. A byte order mark is written at the beginning of a
/// file, not behind what is there. Empty is UTF-8. errors: "strict" (also if empty), "replace" or
/// "ignore". newline: none translates "\r\n" and "\r" to "\n" when reading and nothing when
/// writing; "" translates nothing; when writing, "\r" and "\r\n" replace each "\n".
struct text_options {
    std::string encoding{};
    std::string errors{};
    std::optional<std::string> newline{};
};

/// buffering: -1 is a buffer of the usual size for regular files and none for others; 0 none, so
/// that the descriptor stands where the file does; 1 (in text mode) writes at each newline; more is
/// the size in bytes. limiter: bounds the threads of the file's operations instead of the run's
/// default, and must outlive the file.
struct open_options {
    int buffering = -1;
    std::string encoding{};
    std::string errors{};
    std::optional<std::string> newline{};
    capacity_limiter* limiter = nullptr;
};

} // namespace weft
