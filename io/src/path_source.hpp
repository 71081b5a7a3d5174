#pragma once

#include "path_call.hpp"

#include <weft/io/path.hpp>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <dirent.h>

namespace weft::detail {

/// A name in a directory, and what the file system says about its kind without being asked again.
struct directory_entry {
    std::string name;
    unsigned char type = DT_UNKNOWN; ///< DT_... of the name itself, not of what a link points to
};

/// A directory that is being read. Blocks.
class directory_reader {
public:
    /// Errors: std::system_error, std::invalid_argument (a NUL)
    explicit directory_reader(path const& where);

    /// None at the end. "." and ".." are passed over. Errors: std::system_error
    std::optional<directory_entry> next();
    int fd() const { return ::dirfd(stream_.get()); }

private:
    struct closer {
        void operator()(::DIR* stream) const { ::closedir(stream); }
    };

    path where_;
    std::unique_ptr<::DIR, closer> stream_;
};

/// Whether an entry is a directory; `follow`: a link to one is one. What cannot be found out is
/// none.
bool is_directory(int parent, directory_entry const&, bool follow);

/// What produces the paths of a range, in a thread; so it must own all that it needs.
class path_producer {
public:
    virtual ~path_producer() = default;
    /// Appends some paths; none at the end, or when it finds itself abandoned. Blocks. Errors:
    /// std::system_error
    virtual void produce(std::vector<path>&, std::atomic<bool> const& abandoned) = 0;
};

/// The range's side: a batch of paths, and where there are more.
class path_source {
public:
    /// `make` opens what is to be opened, in a thread, at the first step.
    path_source(capacity_limiter* limiter, std::function<std::unique_ptr<path_producer>()> make)
        : limiter_(limiter), work_(std::make_shared<work>(std::move(make))) {}
    path_source(path_source const&) = delete;
    path_source& operator=(path_source const&) = delete;
    ~path_source() { work_->abandoned.store(true, std::memory_order_relaxed); } // publishes nothing

    path const* next(); ///< null at the end; as path_range::iterator::operator++

private:
    struct work { // shared with a thread, which may be left alone with it
        explicit work(std::function<std::unique_ptr<path_producer>()> how) : make(std::move(how)) {}
        void produce();

        std::function<std::unique_ptr<path_producer>()> make;
        std::unique_ptr<path_producer> producer;
        std::vector<path> batch;
        std::atomic<bool> abandoned = false;
    };

    enum class state : unsigned char { ready, stepping, ended };

    capacity_limiter* const limiter_;
    std::shared_ptr<work> work_;
    std::vector<path> batch_;
    std::size_t at_ = 0;
    state state_ = state::ready;
};

/// How many paths come from one call of a thread: one call costs as much as dozens of paths.
inline constexpr std::size_t batch_size = 256;

} // namespace weft::detail
