#pragma once

#include "file_device.hpp"
#include "file_text.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/detail/encoding.hpp>
#include <weft/io/path.hpp>
#include <weft/sync/mutex.hpp>

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace weft::detail {

/// What has been read and not been taken, and, in front of it, what was taken last.
class read_ahead {
public:
    read_ahead() = default;
    read_ahead(read_ahead const&) = delete;
    read_ahead& operator=(read_ahead const&) = delete;

    std::size_t size() const { return end_ - begin_; }
    std::string_view view() const { return {place_ + begin_, size()}; }
    void take(std::size_t count);
    void clear() { begin_ = end_ = 0; }
    /// Forward, or back over what was taken; false: not that far.
    bool move(std::int64_t distance);

    /// Where so much more can be put; put() says how much there was.
    buffer room(std::size_t count);
    void put(std::size_t count) { end_ += count; }
    /// Instead of what it has. Takes no memory, so that nothing is lost where there is none.
    void keep(std::string octets) noexcept;

private:
    void give_up_space() noexcept;

    std::unique_ptr<char[]> space_;
    std::string kept_;
    char* place_ = nullptr; // in one of them
    std::size_t capacity_ = 0;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

/// How a file was opened.
struct file_format {
    std::string mode;
    bool readable = false;
    bool writable = false;
    bool at_end = false;              ///< every write goes to the end
    std::optional<text_rules> text{}; ///< none: binary
    bool flushes_lines = false;
    bool reads_ahead = true; ///< more than is asked for
    std::size_t gather = 0;  ///< octets that may wait for being written
    capacity_limiter* limiter = nullptr;
    std::optional<path> name{};
};

/// A file between its methods and its device: buffers and position. One caller at a time (`turn`).
///
/// Operations take `may_wait`: false, on a fiber's worker, they use what is in memory and what the
/// device does at once, and give none where that is not enough. Then nothing is lost: what was read
/// is ahead, and the same operation goes on in a thread with `may_wait`.
class file_state {
public:
    enum class wait : bool { no, yes };

    file_state(std::unique_ptr<file_device>, file_format);
    ~file_state(); ///< closes, if that has not been done; failures are not told

    std::optional<bytes> read(std::size_t most, wait);
    std::optional<bytes> read1(std::optional<std::size_t> most, wait);
    std::optional<std::size_t> readinto(buffer, wait);
    std::optional<std::size_t> readinto1(buffer, wait);
    std::optional<std::string> read_characters(text_demand, wait);
    std::optional<std::string> read_line(std::size_t most, wait);
    /// All of it, or, with wait::no, none or all of it.
    std::optional<std::size_t> write(std::string_view data, bool flush, wait);
    std::optional<std::uint64_t> truncate(std::optional<std::uint64_t> size, wait);
    std::optional<std::uint64_t> seek(std::int64_t offset, int whence, wait);
    std::optional<std::uint64_t> tell(wait);
    std::optional<bool> flush(wait);
    void close();

    /// Errors: as file
    void require_open() const;
    void require_readable() const;
    void require_writable() const;
    void require_binary(char const* call) const;
    std::string label() const {
        return format.name ? "'" + format.name->as_posix() + "'" : "a file";
    }

    mutex turn;
    file_format const format;
    std::unique_ptr<file_device> const device;
    std::atomic<bool> closed = false; ///< set under `turn`, read by any task

private:
    enum class filled : unsigned char { more, end, would_wait };

    filled fill(std::size_t wanted, wait);
    bytes read_large(std::size_t most);
    void write_out();
    void note_written(std::size_t count);
    bool drop_ahead(wait);
    std::optional<std::uint64_t> position() const;
    std::optional<std::uint64_t> place_device(std::int64_t offset, int whence, wait);

    read_ahead ahead_;
    std::string gathered_;
    std::optional<std::uint64_t> device_at_; ///< where the device stands, if that is known
    bool jumped_ = false;                    ///< nothing was read since a seek
    std::size_t read_at_once_ = 0;           ///< by the operation that is going on, with wait::no
};

inline constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();

/// A mode and the options with it, looked at. Errors: std::invalid_argument; lookup_error
struct file_request {
    file_format format;
    int flags = 0; ///< for open(2)
    int buffering = -1;
    std::optional<detail::encoding> encoding{}; ///< none: UTF-8, or binary
};
file_request parse_file_mode(std::string const& mode, open_options const&);

/// What is open already, as the request has it. `label` is for errors. Blocks.
std::unique_ptr<file_state> make_file_state(unique_fd, file_request, std::string label);
std::unique_ptr<file_state> make_file_state(std::unique_ptr<file_device>, file_request);
/// Opens, and blocks doing so.
std::unique_ptr<file_state> open_file_state(path const&, file_request);

} // namespace weft::detail
