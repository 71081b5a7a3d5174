#pragma once

#include <weft/io/bytes.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace weft::detail {

/// What a file's octets come from and go to. Each call may block and is made in a thread, except
/// those that say "now". Errors of all: std::system_error with the file's label.
class file_device {
public:
    file_device() = default;
    file_device(file_device const&) = delete;
    file_device& operator=(file_device const&) = delete;
    virtual ~file_device() = default; ///< closes, if that has not been done

    virtual std::size_t read(buffer) = 0;      ///< 0: the end. At most one read(2)
    /// Of a part, at least one octet. Not of nothing, unless begins_text().
    virtual std::size_t write(bytes_view) = 0;
    virtual bool begins_text() const { return false; } ///< an empty one leaves a mark, too. Now
    /// Refuses what write() never could put out, or not in its place. Now. Errors:
    /// std::invalid_argument; operation_not_supported
    virtual void require_acceptable(std::string_view) {}
    virtual void settle() {} ///< puts out what write() has taken, but for what flush() is for
    virtual bool owes() const { return false; } ///< settle() would have something to do. Now
    virtual std::uint64_t seek(std::int64_t offset, int whence) = 0;
    virtual void truncate(std::uint64_t size) = 0;
    virtual void flush() {}
    virtual void close() = 0; ///< once; it is closed even if it throws

    /// Without waiting for anything, on any thread. None: that would not do.
    virtual std::optional<std::size_t> read_now(buffer) { return {}; }
    virtual std::optional<std::size_t> write_now(bytes_view) { return {}; }
    virtual std::optional<std::uint64_t> seek_now(std::int64_t, int) { return {}; }

    /// Nothing but write(), truncate() and flush() ever blocks.
    virtual bool in_memory() const { return false; }

    virtual int fd() const = 0; ///< -1: there is none
    virtual std::FILE* stream() const { return nullptr; }
    virtual bool seekable() const = 0;
    virtual bool lent() const { return false; } ///< somebody goes on with it after close()
    /// False: what is read has no position, only where the device stands with nothing read ahead.
    virtual bool has_positions() const { return true; }
    /// write() might get into the middle of something: seek(0, SEEK_CUR) finds out, and refuses. Now
    virtual bool may_be_inside() const { return false; }
    virtual bool may_gather() const { return false; } ///< whether writing may be put off
    /// How much a reader may find. Blocks.
    virtual std::uint64_t size_hint() const { return 0; }
};

/// `owned`: closed at the end.
std::unique_ptr<file_device> make_descriptor_device(int fd, bool owned, std::string label);
std::unique_ptr<file_device> make_stdio_device(std::FILE*, bool owned, std::string label);

} // namespace weft::detail
