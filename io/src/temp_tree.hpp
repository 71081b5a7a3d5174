#pragma once

#include <weft/io/path.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <dirent.h>
#include <sys/types.h>

namespace weft::detail {

/// Removes a directory and what is in it, step by step. Blocks; follows no link. However deep it is, it needs no
/// more than a few dozen descriptors, for an empty directory none.
class tree_removal {
public:
    explicit tree_removal(path root) : root_(std::move(root)) {}

    /// So many names at most. True: done. What cannot be removed is left.
    bool remove_some(std::size_t names);
    std::exception_ptr failure() const { return failure_; } ///< the first one, if any
    bool fell_short() const { return fell_short_; } ///< of descriptors or memory: it may come through later

private:
    struct closer {
        void operator()(::DIR* stream) const { ::closedir(stream); }
    };
    struct level {
        std::unique_ptr<::DIR, closer> stream; // null: closed, for the sake of those below
        std::string name;
        ::dev_t device = 0; // of those that are closed
        ::ino_t inode = 0;
        std::vector<std::string> left{}; // directories in it that cannot be removed
    };

    bool enter(int parent, std::string const& name);
    void close_upper();
    bool come_back(level const& from);
    void leave();
    void remove_name(char const* name);
    void note(int error, std::string const& name);

    path const root_;
    std::vector<level> levels_;
    std::exception_ptr failure_;
    bool fell_short_ = false;
    bool begun_ = false;
};

} // namespace weft::detail
