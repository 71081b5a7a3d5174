#include "path_source.hpp"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

namespace weft {

namespace detail {

directory_reader::directory_reader(path const& where)
    : where_(where), stream_(::opendir(system_name(where))) {
    if (!stream_) throw_path_error(errno, "read the directory", where_);
}

std::optional<directory_entry> directory_reader::next() {
    for (;;) {
        errno = 0;
        ::dirent const* const entry = ::readdir(stream_.get());
        if (entry == nullptr && errno == 0) return {};
        if (entry == nullptr) throw_path_error(errno, "read the directory", where_);
        if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0)
            return directory_entry{entry->d_name, entry->d_type};
    }
}

bool is_directory(int parent, directory_entry const& entry, bool follow) {
    if (entry.type == DT_DIR) return true;
    if (entry.type != DT_UNKNOWN && (entry.type != DT_LNK || !follow)) return false;
    struct ::stat status {};
    return ::fstatat(parent, entry.name.c_str(), &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISDIR(status.st_mode);
}

void path_source::work::produce() {
    if (!producer) producer = make();
    batch.clear();
    producer->produce(batch, abandoned);
}

path const* path_source::next() {
    if (state_ == state::stepping)
        throw std::logic_error("a step of this range was cancelled or failed: it cannot go on");
    if (at_ < batch_.size()) return &batch_[at_++];
    if (state_ == state::ended) return nullptr;
    state_ = state::stepping; // until the step has ended in good order
    look_in_thread(limiter_, [shared = work_] { shared->produce(); }, "a step of a path's range");
    batch_.swap(work_->batch);
    state_ = batch_.empty() ? state::ended : state::ready;
    at_ = 0;
    return batch_.empty() ? nullptr : &batch_[at_++];
}

namespace {

class directory_listing final : public path_producer {
public:
    explicit directory_listing(path where) : where_(std::move(where)), reader_(where_) {}

    void produce(std::vector<path>& out, std::atomic<bool> const&) override {
        while (out.size() < batch_size) {
            std::optional<directory_entry> const entry = reader_.next();
            if (!entry) return;
            out.push_back(where_ / entry->name);
        }
    }

private:
    path const where_;
    directory_reader reader_;
};

} // namespace
} // namespace detail

path_range::path_range(std::unique_ptr<detail::path_source> source) : source_(std::move(source)) {}
path_range::path_range(path_range&&) noexcept = default;
path_range& path_range::operator=(path_range&&) noexcept = default;
path_range::~path_range() = default;

path_range::iterator& path_range::iterator::operator++() {
    current_ = source_->next();
    return *this;
}

path_range path::iterdir() const {
    return path_range(std::make_unique<detail::path_source>(
        limiter_, [where = *this] { return std::make_unique<detail::directory_listing>(where); }));
}

} // namespace weft
