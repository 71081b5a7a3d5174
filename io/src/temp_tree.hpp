#pragma once

#include <weft/io/path.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <dirent.h>

namespace weft::detail {

/// Removes a directory and what is in it, step by step. Blocks; follows no link.
class tree_removal {
public:
    explicit tree_removal(path root) : root_(std::move(root)) {}

    /// So many names at most. True: done. What cannot be removed is left.
    bool remove_some(std::size_t names);
    std::exception_ptr failure() const { return failure_; } ///< the first one, if any

private:
    struct closer {
        void operator()(::DIR* stream) const { ::closedir(stream); }
    };
    struct level {
        std::unique_ptr<::DIR, closer> stream;
        path where;
        std::string name;
    };

    bool enter(int parent, std::string const& name, path const& where);
    void leave();
    void remove_name(level const&, char const* name);
    void note(int error, path const& where);

    path const root_;
    std::vector<level> levels_;
    std::exception_ptr failure_;
    bool begun_ = false;
};

} // namespace weft::detail
