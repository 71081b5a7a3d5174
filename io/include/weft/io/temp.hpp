#pragma once

#include <weft/io/descriptor.hpp>
#include <weft/io/file.hpp>
#include <weft/io/path.hpp>
#include <weft/io/path_options.hpp>
#include <weft/io/resource.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

namespace weft {

namespace detail {
class spooled_device;

/// A name of the file system that is taken away with this object.
class owned_name {
public:
    owned_name() = default;
    explicit owned_name(path name) : name_(std::move(name)) {}
    owned_name(owned_name&& other) noexcept : name_(std::exchange(other.name_, {})) {}
    owned_name& operator=(owned_name&&) noexcept;
    ~owned_name();

    bool is_empty() const { return !name_; } // removed, released or moved from
    path const& name() const { return *name_; }
    void remove(); ///< blocks. Errors: std::system_error
    void release() { name_.reset(); }

private:
    std::optional<path> name_;
};
} // namespace detail

/// The name of what is made: `prefix`, eight random characters, `suffix`, in the directory; none is
/// gettempdir().
struct temporary_options {
    std::string suffix{};
    std::string prefix = "tmp";
    std::optional<path> directory{};
};

/// The same for files. mode and open: as for open_file(). For named files delete_file: it vanishes,
/// delete_on_close: by close() already, else only when the object is destroyed.
struct temporary_file_options {
    std::string mode = "w+b";
    std::string suffix{};
    std::string prefix = "tmp";
    std::optional<path> directory{};
    open_options open{};
    bool delete_file = true;
    bool delete_on_close = true;
};

/// ignore_cleanup_errors: what cannot be removed is left. delete_directory: false keeps it.
struct temporary_directory_options {
    std::string suffix{};
    std::string prefix = "tmp";
    std::optional<path> directory{};
    bool ignore_cleanup_errors = false;
    bool delete_directory = true;
};

/// Where temporary files go: the first of TMPDIR, TEMP, TMP, /tmp, /var/tmp, /usr/tmp and the
/// current directory that can be written to.
///
/// Cancellation  a cancellation point on entry
/// Errors        std::system_error (ENOENT: none of them); no_event_loop_error
/// Source        AnyIO gettempdir
path gettempdir();

/// A new file that only this user may read and write, and its absolute name. Whoever calls removes
/// it.
struct named_descriptor {
    unique_fd fd;
    path name;
};

/// Cancellation, of these two  a cancellation point on entry; afterwards it is made, and given
/// Errors                      std::system_error; std::invalid_argument (a slash or NUL in prefix
///                             or suffix); no_event_loop_error
/// Source                      AnyIO mkstemp, mkdtemp
named_descriptor mkstemp(temporary_options const& = {});
path mkdtemp(temporary_options const& = {}); ///< a new directory; whoever calls removes it

/// A file without a name: it vanishes with its last descriptor, however that comes about.
///
/// Cancellation, errors  as open_file()
/// Source                AnyIO TemporaryFile
file temporary_file(temporary_file_options const& = {});

/// A file with a name, which vanishes with the object.
///
/// close() removes the name in a thread, also if the task is cancelled; destruction, and assignment to it, removes
/// it at once. A process that is killed leaves it behind.
///
/// Threads, cancellation, errors  as file; close() also with what unlink(2) says, unless it is gone
/// Source                         AnyIO NamedTemporaryFile
class named_temporary_file final : public file {
public:
    explicit named_temporary_file(temporary_file_options const& = {});

    path const& name() const { return name_; }
    void close() override;

private:
    struct opened;
    explicit named_temporary_file(opened);

    path name_;
    detail::owned_name owned_;
    bool on_close_;
};

/// A file in memory until there are more than max_size octets in it or rollover() is called; then a
/// temporary_file(). 0: as large as it may become.
///
/// In memory reading, writing and seeking suspend for fairness only, and there is no descriptor.
///
/// Threads, cancellation, errors  as file. Where there is no room for the file on disk, the write
///                                that was too much fails, and what was written before is kept in
///                                memory
/// Source                         AnyIO SpooledTemporaryFile
class spooled_temporary_file final : public file {
public:
    explicit spooled_temporary_file(std::size_t max_size = 0, temporary_file_options const& = {});

    void rollover();     ///< to disk now; nothing, if it is there
    bool rolled() const; ///< whether it is on disk

private:
    struct made;
    explicit spooled_temporary_file(made);

    detail::spooled_device* device_; // the file's
};

/// A directory that vanishes with the object, and all that is in it.
///
/// close() removes it in a thread, also if the task is cancelled. Destruction, and assignment to it, removes
/// what can be removed quickly at once and leaves the rest to a thread, which is done when run() returns. What
/// it has no memory or descriptors to remove stays; where close() has none, it may be called again.
/// Symbolic links in it are removed and not followed.
///
/// Threads       one task at a time
/// Cancellation  the constructor and close() are cancellation points; close() is finished first
/// Errors        std::system_error (it cannot be made; close(): the first of what cannot be
///               removed)
/// Source        AnyIO TemporaryDirectory
class temporary_directory final : public resource {
public:
    explicit temporary_directory(temporary_directory_options const& = {});
    temporary_directory(temporary_directory&&) noexcept;
    temporary_directory& operator=(temporary_directory&&) noexcept;
    ~temporary_directory() override;

    path const& name() const { return name_; }
    void cleanup() { close(); }
    void close() override;

private:
    path name_;
    bool remove_;
    bool ignore_errors_;
};

} // namespace weft
