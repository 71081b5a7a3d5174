#pragma once

#include <weft/io/file.hpp>
#include <weft/io/path.hpp>
#include <weft/streams/byte_stream.hpp>
#include <weft/sync/resource_guard.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>

namespace weft {

/// What file streams can be asked for. The file stays the stream's; `path` there is only if the
/// file was opened by its name, `fileno` only if it has a descriptor and is open. Source: AnyIO
/// FileStreamAttribute
namespace file_stream_attribute {
inline constexpr typed_attribute<weft::file*> file{"file"};
inline constexpr typed_attribute<int> fileno{"fileno"};
inline constexpr typed_attribute<weft::path> path{"path"};
} // namespace file_stream_attribute

namespace detail {

/// A binary file and who uses it: the common part of both streams.
class streamed_file {
public:
    explicit streamed_file(file opened);

    std::size_t receive_some(buffer target);
    void send(bytes_view data);
    std::uint64_t seek(std::int64_t position, int whence);
    std::uint64_t tell();
    void close();
    attribute_map attributes() const;

private:
    template <class Call> auto perform(char const* call, Call);

    std::unique_ptr<file> file_; // where it is: attributes point to it
    std::unique_ptr<resource_guard> guard_;
};

} // namespace detail

/// The octets of a file, from where it stands.
///
/// The end is no state: what is appended later can be received later.
///
/// Threads       any task
/// Cancellation  every call is a cancellation point on entry: nothing was taken. Afterwards it is
///               finished first; close() closes in any case
/// Errors        as byte_receive_stream; broken_resource_error has the std::system_error nested.
///               seek() and tell(): std::system_error itself (ESPIPE); the constructor:
///               std::invalid_argument (a text file)
/// Source        AnyIO FileReadStream
class file_read_stream final : public byte_receive_stream {
public:
    explicit file_read_stream(file opened) : file_(std::move(opened)) {}
    /// Opens it in a thread, "rb". Errors: as open_file()
    static file_read_stream from_path(path const& name);

    std::size_t receive_some(buffer target) override { return file_.receive_some(target); }
    std::uint64_t seek(std::int64_t position, int whence = SEEK_SET) {
        return file_.seek(position, whence);
    }
    std::uint64_t tell() { return file_.tell(); }
    void close() override { file_.close(); }
    attribute_map extra_attributes() const override { return file_.attributes(); }

private:
    detail::streamed_file file_;
};

/// A file that octets are written to, from where it stands. The file gathers what is small: close()
/// says whether all of it could be written.
///
/// Threads, cancellation, errors  as file_read_stream; cancelled in its course, send() is finished
///                                first; failed, how much was written is unknown
/// Source                         AnyIO FileWriteStream
class file_write_stream final : public byte_send_stream {
public:
    explicit file_write_stream(file opened) : file_(std::move(opened)) {}
    /// Opens it in a thread, "wb", or "ab" to append. Errors: as open_file()
    static file_write_stream from_path(path const& name, bool append = false);

    using byte_send_stream::send;
    void send(bytes_view data) override { file_.send(data); }
    std::uint64_t seek(std::int64_t position, int whence = SEEK_SET) {
        return file_.seek(position, whence);
    }
    std::uint64_t tell() { return file_.tell(); }
    void close() override { file_.close(); }
    attribute_map extra_attributes() const override { return file_.attributes(); }

private:
    detail::streamed_file file_;
};

} // namespace weft
