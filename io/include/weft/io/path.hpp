#pragma once

#include <weft/io/bytes.hpp>
#include <weft/io/path_options.hpp>
#include <weft/io/path_range.hpp>

#include <compare>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>

namespace weft {

class capacity_limiter;
class file;

/// A path of the file system, as Python's pathlib understands paths on POSIX.
///
/// Parsing is pathlib's and not that of std::filesystem: "a//b/./c/" is "a/b/c", ".." stays, the
/// stem of ".bashrc" is ".bashrc", and exactly two leading slashes are a root of their own. A path
/// is text: it may be empty (that is "."), hold newlines and octets that are no UTF-8. One that
/// holds a NUL names nothing.
///
/// What asks the file system runs in a thread (to_thread) and suspends the task. The methods that
/// only look are left at once when they are cancelled, and the thread finishes alone; those that
/// change something, and those that read or write contents, are finished first (PH4). with_limiter()
/// bounds how many of these threads there are; comparison and hash are by the text alone.
///
/// Threads       a value; what depends on the process (cwd, umask, HOME) is looked up in the call
/// Cancellation  every method that asks the file system is a cancellation point on entry: nothing
///               has happened
/// Errors        std::system_error with the errno and the path in its text; std::invalid_argument
///               (Python's ValueError); no_event_loop_error (asked outside a task)
/// Source        AnyIO Path, Python's pathlib
class path {
public:
    /// The flavour of the rules, which never changes. Source: pathlib parser
    static constexpr std::string_view parser = "posixpath";

    path() = default; ///< "."
    path(char const* text) : path(std::string_view(text)) {}
    path(std::string const& text) : path(std::string_view(text)) {}
    path(std::string_view text);
    path(std::filesystem::path const& other) : path(std::string_view(other.native())) {}
    path(path const&) = default;
    path(path&&) noexcept = default;
    path& operator=(path const&) = default;
    path& operator=(path&& other) noexcept {
        if (this != &other) text_ = std::move(other.text_); // a string that is moved onto itself is empty
        limiter_ = other.limiter_;
        return *this;
    }

    /// The segments joined; one that is absolute drops what is before it.
    template <class Second, class... More>
    requires std::convertible_to<Second const&, path> path(path const& first, Second const& second,
                                                           More const&... more)
        : path(first.joinpath(second, more...)) {}

    operator std::filesystem::path() const { return text(); }

    // -- What a path says about itself ------------------------------------------------------------

    /// The text: "." if there are no parts. Source: pathlib as_posix, __str__, __fspath__
    std::string const& as_posix() const& { return text(); }
    std::string as_posix() && { return text(); }

    std::vector<std::string> parts() const;  ///< the root, if there is one, and the names
    std::string drive() const { return {}; } ///< always empty on POSIX
    std::string root() const;                ///< "", "/" or "//"
    std::string anchor() const { return root(); }
    /// The parent, its parent, and so on up to the anchor or ".".
    std::vector<path> parents() const;
    path parent() const;        ///< of "/" and "." they themselves; of ".." it is "."
    std::string name() const;   ///< the last part, unless that is the root
    std::string suffix() const; ///< from the name's last dot on; "" for ".bashrc" and "a."
    std::vector<std::string> suffixes() const;
    std::string stem() const; ///< the name without its suffix

    bool is_absolute() const { return root_length() != 0; }
    bool is_reserved() const { return false; } ///< names are reserved elsewhere only
    bool is_junction() const { return false; } ///< there are none on POSIX
    /// Whether the path is the other one or below it, by its text.
    bool is_relative_to(path const& other) const;

    /// "file:///..." with everything beyond unreserved ASCII encoded. Errors: std::invalid_argument
    /// (a relative path)
    std::string as_uri() const;
    /// The path in a URI of the scheme file, of this host. Errors: std::invalid_argument (another
    /// scheme or host, a relative path)
    static path from_uri(std::string_view uri);

    /// Whether the pattern's parts match the last parts of the path, all of them if it is absolute.
    /// `*`, `?`, `[set]` and `[!set]` do not match a slash; "**" is like "*". Errors:
    /// std::invalid_argument (an empty pattern)
    bool match(path const& pattern, match_options const& = {}) const;
    /// Whether the pattern matches the whole path; "**" as a part stands for any number of parts.
    bool full_match(path const& pattern, match_options const& = {}) const;

    // -- Other paths made of it -------------------------------------------------------------------

    /// The segments appended; one that is absolute drops what is before it.
    template <class... Segments>
    requires(std::convertible_to<Segments const&, path>&&...) path
        joinpath(Segments const&... segments)
    const {
        path joined = *this;
        (joined.append(segments), ...);
        return joined;
    }
    /// A path of the segments alone.
    template <class... Segments>
    requires(std::convertible_to<Segments const&, path>&&...) path
        with_segments(Segments const&... segments)
    const { return keep(path().joinpath(segments...)); }
    /// What leads from the other path to this one, by the text. Errors: std::invalid_argument (this
    /// one is not below the other; with walk_up: a ".." is in the way, or one of them is absolute)
    path relative_to(path const& other, relative_to_options const& = {}) const;
    /// Errors: std::invalid_argument (there is no name, or the new one is none)
    path with_name(std::string_view name) const;
    /// Errors: as with_name(); an empty stem before a suffix
    path with_stem(std::string_view stem) const;
    /// An empty suffix takes the old one away. Errors: std::invalid_argument (no name, no suffix)
    path with_suffix(std::string_view suffix) const;

    /// This path with a limiter, which bounds its threads instead of the run's default; whatever is
    /// made of it (by any method, by a range, as left side of "/") has the same. The limiter must
    /// outlive them all, and the calls that were left alone. Source: AnyIO Path(limiter)
    path with_limiter(capacity_limiter& limiter) const {
        path result = *this;
        result.limiter_ = &limiter;
        return result;
    }
    capacity_limiter* limiter() const { return limiter_; } ///< null: the run's default

    friend path operator/(path const& left, path const& right) { return left.joinpath(right); }
    template <std::same_as<std::filesystem::path> Other>
    friend path operator/(path const& left, Other const& right) {
        return left.joinpath(path(right));
    }
    template <std::same_as<std::filesystem::path> Other>
    friend path operator/(Other const& left, path const& right) {
        return right.keep(path(left).joinpath(right));
    }
    path& operator/=(path const& other) {
        append(other);
        return *this;
    }

    friend bool operator==(path const& left, path const& right) {
        return left.text_ == right.text_;
    }
    /// By parts, each by its octets.
    friend std::strong_ordering operator<=>(path const& left, path const& right) {
        return compare(left.text_, right.text_);
    }
    template <std::same_as<std::filesystem::path> Other>
    friend bool operator==(path const& left, Other const& right) {
        return left == path(right);
    }
    template <std::same_as<std::filesystem::path> Other>
    friend std::strong_ordering operator<=>(path const& left, Other const& right) {
        return left <=> path(right);
    }
    /// The text as it is.
    friend std::ostream& operator<<(std::ostream&, path const&);

    // -- What the file system says: left at once on cancellation ----------------------------------

    struct ::stat stat(follow_options const& = {}) const;
    struct ::stat lstat() const;
    /// False also where a part is missing, is no directory or a loop, and for impossible names;
    /// another failure is an error. The same holds for every is_...
    bool exists(follow_options const& = {}) const;
    bool is_file(follow_options const& = {}) const;
    bool is_dir(follow_options const& = {}) const;
    bool is_symlink() const;
    bool is_fifo() const;
    bool is_socket() const;
    bool is_block_device() const;
    bool is_char_device() const;
    bool is_mount() const; ///< a symbolic link never is
    /// Errors: also lookup_error (the owner has no entry in the user database)
    std::string owner(follow_options const& = {}) const;
    std::string group(follow_options const& = {}) const;
    bool samefile(path const& other) const;
    /// "~" and "~user" as first part replaced. Errors: std::logic_error (nobody knows that home)
    path expanduser() const;
    /// Absolute, without symbolic links and "..". Parts that are missing stay, and so does a loop,
    /// unless it is strict: then both are errors (ENOENT, ELOOP).
    path resolve(resolve_options const& = {}) const;

    // -- What is finished first -------------------------------------------------------------------

    static path cwd();
    static path home();    ///< Errors: std::logic_error (nobody knows it)
    path absolute() const; ///< below cwd() if it is relative; links and ".." stay
    path readlink() const;
    void chmod(unsigned mode, follow_options const& = {}) const;
    void lchmod(unsigned mode) const; ///< Linux refuses it for symbolic links
    void mkdir(mkdir_options const& = {}) const;
    void rmdir() const;
    void touch(touch_options const& = {}) const;
    void unlink(unlink_options const& = {}) const;
    path rename(path const& target) const;  ///< gives the target; a file there is replaced
    path replace(path const& target) const; ///< the same
    void symlink_to(path const& target, symlink_options const& = {}) const; ///< this is the link
    void hardlink_to(path const& target) const;                             ///< this is the link

    /// As weft::open_file(), with the path's limiter unless another is given.
    file open(std::string mode = "r", open_options const& = {}) const;
    bytes read_bytes() const;
    /// The whole file, decoded to UTF-8, its newlines translated. Errors: also
    /// std::invalid_argument (it cannot be decoded); lookup_error (no such encoding)
    std::string read_text(text_options const& = {}) const;
    std::size_t write_bytes(bytes_view data) const; ///< gives the number of octets
    /// Gives the number of characters. Errors: also std::invalid_argument (no UTF-8; not to be
    /// encoded); lookup_error (no such encoding): the file is untouched
    std::size_t write_text(std::string_view text, text_options const& = {}) const;

    // -- Directories ------------------------------------------------------------------------------

    /// What is in the directory, in no order, without "." and "..". Each step may be left at once
    /// on cancellation. Errors: of the first step, if it cannot be opened
    path_range iterdir() const;
    /// What below this directory fits the pattern: parts as those of match(), "**" for any number
    /// of directories (not through symbolic links, unless recurse_symlinks), a slash at the end for
    /// directories only. What cannot be read is left out; each path comes once. Errors:
    /// std::invalid_argument (an empty or absolute pattern), at once
    path_range glob(std::string_view pattern, glob_options const& = {}) const;
    path_range rglob(std::string_view pattern, glob_options const& = {}) const; ///< "**/" before it
    /// This directory and those below it, each with the names in it. See walk_options
    walk_range walk(walk_options = {}) const;

private:
    friend struct std::hash<path>;

    std::string const& text() const;
    std::size_t root_length() const;
    std::string_view names() const { return std::string_view(text_).substr(root_length()); }
    std::string_view name_view() const;
    void append(path const& other);
    path keep(path made) const { // PH2
        made.limiter_ = limiter_;
        return made;
    }
    std::string_view nonempty_name() const;
    static std::strong_ordering compare(std::string_view left, std::string_view right);

    std::string text_; // collapsed; empty for "."
    capacity_limiter* limiter_ = nullptr;
};

/// One directory of a walk: the names of the directories in it, and of everything else.
struct walk_entry {
    path directory;
    std::vector<std::string> directories;
    std::vector<std::string> files;
};

} // namespace weft

template <> struct std::hash<weft::path> {
    std::size_t operator()(weft::path const& hashed) const noexcept {
        return std::hash<std::string>()(hashed.text_);
    }
};
