#include "temp_spool.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace weft::detail {

namespace {

[[noreturn]] void fail(int error, char const* what) {
    throw std::system_error(error, std::system_category(), what);
}

} // namespace

// The memory is given up when all of it is in the file, so that a full disk loses nothing.
void spooled_device::rollover() {
    if (file_) return;
    std::unique_ptr<file_device> made = make_();
    for (std::size_t done = 0; done < memory_.size();)
        done += made->write(std::string_view(memory_).substr(done));
    made->seek(std::int64_t(at_), SEEK_SET);
    file_ = std::move(made);
    fd_.store(file_->fd(), std::memory_order_release); // pairs with fd()
    memory_ = {};
}

std::size_t spooled_device::read(buffer target) {
    if (file_) return file_->read(target);
    std::size_t const from = std::min(at_, memory_.size());
    std::size_t const count = std::min(target.size(), memory_.size() - from);
    std::memcpy(target.data(), memory_.data() + from, count);
    at_ += count;
    return count;
}

std::size_t spooled_device::write(bytes_view data) {
    if (auto const done = write_now(data)) return *done;
    rollover();
    return file_->write(data);
}

std::optional<std::size_t> spooled_device::write_now(bytes_view data) {
    if (file_) return file_->write_now(data);
    if (data.size() > memory_.max_size() - at_ || !fits(at_ + data.size())) return {};
    if (data.empty()) return 0;
    if (memory_.size() < at_ + data.size()) memory_.resize(at_ + data.size());
    std::memcpy(memory_.data() + at_, data.data(), data.size());
    at_ += data.size();
    return data.size();
}

std::optional<std::size_t> spooled_device::read_now(buffer target) {
    return file_ ? file_->read_now(target) : read(target);
}

std::uint64_t spooled_device::seek(std::int64_t offset, int whence) {
    if (file_) return file_->seek(offset, whence);
    if (whence > SEEK_END) fail(EINVAL, "cannot seek in a file in memory");
    std::size_t const from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? at_ : memory_.size();
    std::int64_t const target = std::int64_t(from) + offset; // both are far from the ends
    if (target < 0) fail(EINVAL, "cannot seek in a file in memory");
    at_ = std::size_t(target);
    return at_;
}

std::optional<std::uint64_t> spooled_device::seek_now(std::int64_t offset, int whence) {
    if (file_) return file_->seek_now(offset, whence);
    return seek(offset, whence);
}

void spooled_device::truncate(std::uint64_t size) {
    if (!file_ && !fits(size)) rollover();
    if (file_) return file_->truncate(size);
    if (size > memory_.max_size()) fail(EFBIG, "cannot truncate a file in memory");
    memory_.resize(size);
}

void spooled_device::close() {
    memory_ = {};
    if (file_) file_->close();
}

} // namespace weft::detail
