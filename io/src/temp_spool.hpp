#pragma once

#include "file_device.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <string>

namespace weft::detail {

/// Octets in memory; when there are too many, or when it is told to, in a file.
class spooled_device final : public file_device {
public:
    using file_maker = std::function<std::unique_ptr<file_device>()>;

    /// `most`: octets in memory; 0: any number. `make`: the file, empty; it blocks,
    /// and what it makes has a descriptor.
    spooled_device(std::size_t most, file_maker make) : most_(most), make_(std::move(make)) {}

    void rollover();                          ///< blocks
    bool rolled() const { return fd() >= 0; } ///< as fd(), by any task while another one writes

    std::size_t read(buffer) override;
    std::size_t write(bytes_view) override;
    std::uint64_t seek(std::int64_t offset, int whence) override;
    void truncate(std::uint64_t size) override;
    void close() override;
    std::optional<std::size_t> read_now(buffer) override;
    std::optional<std::size_t> write_now(bytes_view) override;
    std::optional<std::uint64_t> seek_now(std::int64_t offset, int whence) override;
    int fd() const override { return fd_.load(std::memory_order_acquire); } // pairs with rollover()
    bool seekable() const override { return true; }
    bool may_gather() const override { return file_ && file_->may_gather(); }
    bool in_memory() const override { return !file_; }

private:
    bool fits(std::size_t size) const { return most_ == 0 || size <= most_; }

    std::size_t const most_;
    file_maker const make_;
    std::string memory_;
    std::size_t at_ = 0; // may be beyond the end
    std::unique_ptr<file_device> file_;
    std::atomic<int> fd_ = -1; // the file's
};

} // namespace weft::detail
