#pragma once

#include <cstddef>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace weft {

class path;

namespace detail {
class path_source;
class walk_source;
} // namespace detail

/// Paths found one after the other, while the loop runs.
///
/// Directories are read in threads, a batch of names at a time; nothing is read before begin().
/// To be walked over once.
///
/// Threads       one task at a time
/// Cancellation  begin() and ++ are cancellation points and are left at once; the range is *broken*
///               then and refuses further steps
/// Errors        std::system_error; std::logic_error (a step after one that was cancelled)
/// Source        AnyIO Path.iterdir, glob, rglob
class path_range {
public:
    class iterator {
    public:
        using value_type = path;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;

        iterator() = default;
        explicit iterator(detail::path_source& source) : source_(&source) { ++*this; }

        path const& operator*() const { return *current_; }
        path const* operator->() const { return current_; }
        iterator& operator++();
        void operator++(int) { ++*this; }
        friend bool operator==(iterator const& place, std::default_sentinel_t) {
            return place.current_ == nullptr;
        }

    private:
        detail::path_source* source_ = nullptr;
        path const* current_ = nullptr; // in the source's batch
    };

    explicit path_range(std::unique_ptr<detail::path_source>);
    path_range(path_range&&) noexcept;
    path_range& operator=(path_range&&) noexcept;
    ~path_range();

    iterator begin() { return source_ ? iterator(*source_) : iterator(); } // moved from: empty
    std::default_sentinel_t end() const { return {}; }

private:
    std::unique_ptr<detail::path_source> source_;
};

struct walk_entry;

/// Directories one after the other, each with the names in it, while the loop runs. Of a walk from
/// the top, erasing from `directories` leaves those out; the order there is the order of the walk.
///
/// Threads       one task at a time
/// Cancellation  begin() and ++ are cancellation points: cancelled, they did nothing and may be
///               called again
/// Errors        what walk_options::on_error throws
/// Source        AnyIO Path.walk
class walk_range {
public:
    class iterator {
    public:
        using value_type = walk_entry;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;

        iterator() = default;
        explicit iterator(detail::walk_source& source) : source_(&source) { ++*this; }

        walk_entry& operator*() const { return *current_; }
        walk_entry* operator->() const { return current_; }
        iterator& operator++();
        void operator++(int) { ++*this; }
        friend bool operator==(iterator const& place, std::default_sentinel_t) {
            return place.current_ == nullptr;
        }

    private:
        detail::walk_source* source_ = nullptr;
        walk_entry* current_ = nullptr; // the source's
    };

    explicit walk_range(std::unique_ptr<detail::walk_source>);
    walk_range(walk_range&&) noexcept;
    walk_range& operator=(walk_range&&) noexcept;
    ~walk_range();

    iterator begin() { return source_ ? iterator(*source_) : iterator(); } // moved from: empty
    std::default_sentinel_t end() const { return {}; }

private:
    std::unique_ptr<detail::walk_source> source_;
};

} // namespace weft
