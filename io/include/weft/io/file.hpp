#pragma once

#include <weft/io/bytes.hpp>
#include <weft/io/path.hpp>
#include <weft/io/path_options.hpp>
#include <weft/io/resource.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft {

namespace detail {
class file_state;
}

/// An open file, with the methods of Python's file objects and what they mean there.
///
/// A text file ("r", "w+") reads and writes UTF-8 whatever its encoding is, counts characters, and
/// translates newlines as its options say; a binary one ("rb") deals in octets. Reading is from a
/// buffer; what is in the page cache is read at once, everything else in a thread. Writing to a
/// regular file gathers up to a buffer: flush() and close() write it out, and tell what went wrong.
///
/// Destruction closes at once. It writes out what is still gathered, at most one buffer, and cannot
/// tell of a failure: close() before.
///
/// Threads       any task; a second one waits for its turn. What never waits must not be called
///               while the file is being closed, closed() excepted
/// Cancellation  every call that reads, writes or seeks is a cancellation point on entry and while
///               it waits for its turn: *nothing* happened. Afterwards it is finished first
/// Errors        std::system_error with the errno and the path in its text; of these
///               operation_not_supported is what the mode or kind of file does not allow (Python's
///               io.UnsupportedOperation); std::invalid_argument (after close(); a text file: no
///               UTF-8, cannot be encoded or decoded). What failed to be written out is kept,
///               and tried again by the next flush() or close()
/// Source        AnyIO AsyncFile, Python's io
class file : public resource {
public:
    file(file&&) noexcept;
    file& operator=(file&&) noexcept;
    ~file() override;

    /// So many octets or characters, fewer only at the end; negative: all there are. Empty at the
    /// end.
    bytes read(std::ptrdiff_t size = -1);
    /// What there is, by at most one system call; negative: a buffer full. Binary files only.
    bytes read1(std::ptrdiff_t size = -1);
    /// A line with its newline; without one at the end of the file, empty behind that. Not more
    /// than `size` octets or characters of it, unless that is negative.
    std::string readline(std::ptrdiff_t size = -1);
    /// The lines that are left.
    std::vector<std::string> readlines();
    /// Fills the buffer; fewer octets only at the end. Binary files only, as readinto1().
    std::size_t readinto(buffer target);
    std::size_t readinto1(buffer target); ///< by at most one system call

    /// Gives the number of octets, of characters for a text file: all of them. Cancellation: see
    /// above. A failure leaves it unknown how much of these data was written (progress). Errors:
    /// std::invalid_argument (text that strict rules or the encoding refuse; nothing of it is taken)
    std::size_t write(bytes_view data);
    /// Everything in the range, without newlines in between.
    template <std::ranges::input_range Range>
    requires std::convertible_to<std::ranges::range_reference_t<Range const>, bytes_view>
    void writelines(Range const& lines) {
        std::string gathered;
        for (auto const& line : lines) {
            gathered += bytes_view(line).text();
            if (gathered.size() >= gathered_lines) write(std::exchange(gathered, {}));
        }
        write(gathered);
    }

    /// Cuts the file there, or extends it with zeros; without a size at the current position, which
    /// stays. Gives the size.
    std::uint64_t truncate(std::optional<std::uint64_t> size = {});
    /// Gives the new position. Positions are octets of the file, also of text files; those go to 0,
    /// to what tell() gave, and by CUR and END with the offset 0 only. In another encoding than UTF-8
    /// a place in what was read has no position: there, before the end or the next seek(), tell(),
    /// truncate() without a size and write() are operation_not_supported.
    std::uint64_t seek(std::int64_t offset, int whence = SEEK_SET);
    std::uint64_t tell();
    void flush(); ///< hands to the system what is gathered; says nothing about the disk

    /// Writes out, then closes in a thread, whatever happens; a cancellation is noticed afterwards. Idempotent. What
    /// another task has under way is waited for, also by close_forcefully(): its thread cannot be interrupted.
    void close() override;

    /// These never wait. Errors: as above
    int fileno() const;
    bool closed() const noexcept;
    bool readable() const;
    bool writable() const;
    bool seekable() const;
    bool is_text() const;
    std::string const& mode() const;                ///< as it was opened
    std::optional<path> const& opened_path() const; ///< none: a wrapped or nameless file
    std::FILE* wrapped() const;                     ///< the C stream, or null
    capacity_limiter* limiter() const;              ///< of its threads; null: the run's default

    /// `for (std::string const& line : file)`: readline() until it is empty.
    class line_iterator {
    public:
        using value_type = std::string;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;

        line_iterator() = default;
        explicit line_iterator(file& from) : from_(&from) { ++*this; }

        std::string& operator*() const { return line_; }
        std::string* operator->() const { return &line_; }
        line_iterator& operator++() {
            line_ = from_->readline();
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(line_iterator const& place, std::default_sentinel_t) {
            return place.line_.empty();
        }

    private:
        file* from_ = nullptr;
        mutable std::string line_; // the line belongs to whoever looks at it
    };
    line_iterator begin() { return line_iterator(*this); }
    std::default_sentinel_t end() { return {}; }

    /// For the library: what a file is made of.
    explicit file(std::unique_ptr<detail::file_state>) noexcept;

protected:
    detail::file_state& state() const;

private:
    static constexpr std::size_t gathered_lines = 65536;

    std::unique_ptr<detail::file_state> state_; // null: moved from
};

/// Opens a file, in a thread. The mode is Python's: one of "r", "w" (made empty), "a" (at the end),
/// "x" (must be new), then "+" (both ways), "b" or "t".
///
/// Cancellation  a cancellation point on entry; afterwards it is finished first
/// Errors        std::system_error (the errno of open(2), EISDIR for directories), with the path;
///               std::invalid_argument (a bad mode, options that do not go with it, a NUL in the
///               path) and lookup_error (an unknown encoding), before anything is opened;
///               no_event_loop_error
/// Source        AnyIO open_file, Python's open
file open_file(path const& name, std::string mode = "r", open_options const& how = {});

/// A file of what is open already, binary, with the mode that the descriptor has. With close_fd it
/// is closed at the end, else left open, at the position where reading has come to; what cannot
/// seek, as a pipe, has lost what was read ahead. `limiter`: as open_options has it.
///
/// Threads  any; it never waits
/// Errors   std::system_error (no open descriptor): it is not closed then
/// Source   AnyIO wrap_file
file wrap_file(int fd, bool close_fd = true, capacity_limiter* limiter = nullptr);
/// What cannot seek, as a pipe, is written to at once, after what the stream has in its buffer.
/// Errors: also std::invalid_argument (null)
file wrap_file(std::FILE* stream, bool close_file = true, capacity_limiter* limiter = nullptr);

} // namespace weft
