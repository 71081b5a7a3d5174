#include <weft/streams/file_stream.hpp>

#include <weft/sync/error.hpp>

#include <exception>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weft {

namespace detail {

streamed_file::streamed_file(file opened)
    : file_(std::make_unique<file>(std::move(opened))),
      guard_(std::make_unique<resource_guard>("using")) {
    if (file_->is_text()) throw std::invalid_argument("a file stream needs a binary file");
}

// What the file says, as streams say it.
template <class Call> auto streamed_file::perform(char const* call, Call operation) {
    if (!file_ || file_->closed()) throw closed_resource_error();
    auto const inside = guard_->enter();
    try {
        return operation();
    } catch (std::system_error const&) {
        if (call == nullptr) throw;
        std::throw_with_nested(broken_resource_error(call));
    } catch (std::invalid_argument const&) {
        if (file_->closed())
            throw closed_resource_error(); // by another task, while this one waited
        throw;
    }
}

std::size_t streamed_file::receive_some(buffer target) {
    if (target.empty()) throw std::invalid_argument("there is no room in the buffer");
    return perform("the file cannot be read", [&] { return file_->readinto1(target); });
}

void streamed_file::send(bytes_view data) {
    perform("the file cannot be written to", [&] { file_->write(data); });
}

std::uint64_t streamed_file::seek(std::int64_t position, int whence) {
    return perform(nullptr, [&] { return file_->seek(position, whence); });
}

std::uint64_t streamed_file::tell() {
    return perform(nullptr, [&] { return file_->tell(); });
}

void streamed_file::close() {
    if (file_) file_->close();
}

attribute_map streamed_file::attributes() const {
    if (!file_) return {};
    attribute_map known{{file_stream_attribute::file, [held = file_.get()] { return held; }}};
    if (auto const& name = file_->opened_path())
        known.update({{file_stream_attribute::path, [name = *name] { return name; }}});
    if (file_->closed()) return known;
    try {
        int const fd = file_->fileno();
        known.update({{file_stream_attribute::fileno, [fd] { return fd; }}});
    } catch (std::system_error const&) { // no real file (FS4)
    }
    return known;
}

} // namespace detail

file_read_stream file_read_stream::from_path(path const& name) {
    return file_read_stream(open_file(name, "rb"));
}

file_write_stream file_write_stream::from_path(path const& name, bool append) {
    return file_write_stream(open_file(name, append ? "ab" : "wb"));
}

} // namespace weft
