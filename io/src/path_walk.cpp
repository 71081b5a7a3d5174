#include <weft/io/path.hpp>

#include "path_source.hpp"

#include <system_error>
#include <utility>

namespace weft {

namespace detail {

/// What is left of a walk: directories to be read and, from the bottom up, entries to be given.
class walk_source {
public:
    walk_source(path top, walk_options how) : how_(std::move(how)) {
        stack_.push_back({.entry = {std::move(top), {}, {}}});
    }

    walk_entry* next();

private:
    struct item {
        walk_entry entry;
        bool read = false; // else only its directory is known
    };

    void push_children(path const& of, std::vector<std::string> const& names);

    walk_options const how_;
    std::vector<item> stack_; // the next one is the last
    walk_entry current_;
    bool given_ = false; // `current_`, from the top down: its children come once it has been pruned
};

// The directories that the user has left, the first one on top.
void walk_source::push_children(path const& of, std::vector<std::string> const& names) {
    for (std::size_t i = names.size(); i-- > 0;)
        stack_.push_back({.entry = {of / names[i], {}, {}}});
}

// In a thread. Gives an error instead of throwing it: on_error is called by the task.
std::optional<std::system_error> read_names(path const& where, bool follow, walk_entry& into) {
    try {
        directory_reader reader(where);
        while (auto entry = reader.next()) {
            bool const is_dir = is_directory(reader.fd(), *entry, follow);
            (is_dir ? into.directories : into.files).push_back(std::move(entry->name));
        }
        return {};
    } catch (std::system_error const& failure) {
        return failure;
    }
}

// A directory leaves the stack when it has been read, so that a step that is cancelled begins
// again.
walk_entry* walk_source::next() {
    if (std::exchange(given_, false)) push_children(current_.directory, current_.directories);
    while (!stack_.empty()) {
        if (stack_.back().read) {
            current_ = std::move(stack_.back().entry);
            stack_.pop_back();
            return &current_;
        }
        walk_entry found{stack_.back().entry.directory, {}, {}};
        std::optional<std::system_error> const failure =
            act_in_thread(found.directory.limiter(),
                          [&] { return read_names(found.directory, how_.follow_symlinks, found); }, "path::walk");
        stack_.pop_back();
        if (failure) {
            if (how_.on_error) how_.on_error(*failure);
            continue;
        }
        if (how_.top_down) {
            current_ = std::move(found);
            given_ = true;
            return &current_;
        }
        std::vector<std::string> const names = found.directories;
        path const where = found.directory;
        stack_.push_back({.entry = std::move(found), .read = true});
        push_children(where, names); // above it: they are given first
    }
    return nullptr;
}

} // namespace detail

walk_range::walk_range(std::unique_ptr<detail::walk_source> source) : source_(std::move(source)) {}
walk_range::walk_range(walk_range&&) noexcept = default;
walk_range& walk_range::operator=(walk_range&&) noexcept = default;
walk_range::~walk_range() = default;

walk_range::iterator& walk_range::iterator::operator++() {
    current_ = source_->next();
    return *this;
}

walk_range path::walk(walk_options how) const {
    return walk_range(std::make_unique<detail::walk_source>(*this, std::move(how)));
}

} // namespace weft
