#include <weft/io/path.hpp>

#include "path_pattern.hpp"
#include "path_source.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

namespace weft {

namespace {

// How a pattern is looked for
//
// All of it at once, directory by directory. A directory is visited with a set of positions in the
// pattern, those that its path has led to; "**" stays in the set while it goes down. So each
// directory is read once and each path given once, whatever "**" there are. pathlib, until 3.12,
// has one generator for each part and remembers what it gave.
//
// What Python 3.13 does decides: errors are passed over, "**" at the end gives files, too.

struct pattern_part {
    enum class kind : unsigned char { literal, wildcard, any_depth } what;
    std::string text;
    std::optional<detail::name_pattern> pattern{}; // of a wildcard
};

struct glob_pattern {
    std::vector<pattern_part> parts;
    bool directories_only = false;
};

pattern_part make_part(std::string text, bool case_sensitive) {
    using kind = pattern_part::kind;
    if (text == "**") return {kind::any_depth, std::move(text)};
    bool const plain = text.find_first_of("*?[") == std::string::npos;
    if (text == ".." || (plain && case_sensitive)) return {kind::literal, std::move(text)};
    detail::name_pattern pattern(text, case_sensitive);
    return {kind::wildcard, std::move(text), std::move(pattern)};
}

glob_pattern parse(std::string_view text, bool case_sensitive) {
    path const whole = text;
    if (whole.is_absolute())
        throw std::invalid_argument("the pattern '" + std::string(text) + "' is absolute");
    glob_pattern result;
    for (std::string& part : whole.parts()) {
        bool const again = part == "**" && !result.parts.empty() &&
                           result.parts.back().what == pattern_part::kind::any_depth;
        if (!again) result.parts.push_back(make_part(std::move(part), case_sensitive));
    }
    if (result.parts.empty())
        throw std::invalid_argument("the pattern '" + std::string(text) + "' is empty");
    result.directories_only = text.ends_with('/') || text.ends_with("/.");
    return result;
}

class glob_search final : public detail::path_producer {
public:
    glob_search(path base, glob_pattern pattern, bool recurse_symlinks)
        : pattern_(std::move(pattern)), recurse_symlinks_(recurse_symlinks) {
        visits_.push_back({std::move(base), {0}});
    }

    void produce(std::vector<path>& out, std::atomic<bool> const& abandoned) override;

private:
    using positions = std::vector<std::size_t>; // ascending

    struct visit {
        path where;
        positions at;
    };
    // A name and what it means: filled in as far as it is needed.
    struct candidate {
        detail::directory_entry entry;
        int parent; // its directory's descriptor, or AT_FDCWD for a path
    };

    static void add(positions& to, std::size_t position) {
        auto const place = std::ranges::lower_bound(to, position);
        if (place == to.end() || *place != position) to.insert(place, position);
    }

    pattern_part::kind kind_at(std::size_t position) const { return pattern_.parts[position].what; }
    bool is_end(std::size_t position) const { return position == pattern_.parts.size(); }
    // "**" at the end of the pattern gives what is no directory, too.
    bool takes_anything(std::size_t any_depth) const {
        return is_end(any_depth + 1) && !pattern_.directories_only;
    }
    positions with_nothing_for_any_depth(positions at) const;
    bool needs_listing(positions const& at) const;

    void begin(std::vector<path>& out);
    void examine(visit const&, std::vector<path>& out);
    bool examine_listing(visit const&, positions const& at, std::vector<path>& out);
    void examine_literals(visit const&, positions const& at, bool parents_only,
                          std::vector<path>& out);
    void take(path found, candidate const&, positions next, bool ends_any_depth,
              std::vector<path>& out);

    glob_pattern const pattern_;
    bool const recurse_symlinks_;
    bool begun_ = false;
    std::vector<visit> visits_; // the last one is next
};

constexpr std::size_t visits_at_once = 32; // in one call, once there is something to give

void glob_search::produce(std::vector<path>& out, std::atomic<bool> const& abandoned) {
    if (!begun_) begin(out);
    std::size_t visited = 0;
    while (!visits_.empty() &&
           !abandoned.load(std::memory_order_relaxed)) { // nothing to see: a flag
        if (out.size() >= detail::batch_size || (!out.empty() && visited >= visits_at_once)) return;
        visit const next = std::move(visits_.back());
        visits_.pop_back();
        examine(next, out);
        ++visited;
    }
}

// "**" is also no directory at all: then the directory that the search begins in fits.
void glob_search::begin(std::vector<path>& out) {
    begun_ = true;
    positions const at = with_nothing_for_any_depth(visits_.front().at);
    path const& base = visits_.front().where;
    detail::directory_entry const self{base.as_posix(), DT_UNKNOWN};
    if (is_end(at.back()) && detail::is_directory(AT_FDCWD, self, true)) out.push_back(base);
}

glob_search::positions glob_search::with_nothing_for_any_depth(positions at) const {
    for (std::size_t i = 0; i < at.size(); ++i) // what is added comes right behind
        if (!is_end(at[i]) && kind_at(at[i]) == pattern_part::kind::any_depth) add(at, at[i] + 1);
    return at;
}

bool glob_search::needs_listing(positions const& at) const {
    return std::ranges::any_of(at, [this](std::size_t position) {
        return !is_end(position) && kind_at(position) != pattern_part::kind::literal;
    });
}

void glob_search::examine(visit const& here, std::vector<path>& out) {
    positions const at = with_nothing_for_any_depth(here.at);
    bool const listed = needs_listing(at) && examine_listing(here, at, out);
    examine_literals(here, at, listed, out); // ".." is in no listing
}

// False: the directory cannot be read.
bool glob_search::examine_listing(visit const& here, positions const& at, std::vector<path>& out) {
    try {
        detail::directory_reader reader(here.where);
        while (auto entry = reader.next()) {
            positions next;
            bool ends_any_depth = false;
            candidate const found{std::move(*entry), reader.fd()};
            for (std::size_t const position : at) {
                if (is_end(position)) continue;
                pattern_part const& part = pattern_.parts[position];
                if (part.what == pattern_part::kind::any_depth) {
                    if (detail::is_directory(found.parent, found.entry, recurse_symlinks_))
                        add(next, position);
                    else
                        ends_any_depth = ends_any_depth || takes_anything(position);
                } else if (part.pattern ? part.pattern->matches(found.entry.name)
                                        : part.text == found.entry.name) {
                    add(next, position + 1);
                }
            }
            if (!next.empty() || ends_any_depth)
                take(here.where / found.entry.name, found, std::move(next), ends_any_depth, out);
        }
        return true;
    } catch (std::system_error const&) { // forbidden, gone, or no directory
        return false;
    }
}

// Names that are known need no listing, and no permission to list.
void glob_search::examine_literals(visit const& here, positions const& at, bool parents_only,
                                   std::vector<path>& out) {
    std::map<std::string, positions> names;
    for (std::size_t const position : at) {
        if (is_end(position) || kind_at(position) != pattern_part::kind::literal) continue;
        std::string const& name = pattern_.parts[position].text;
        if (!parents_only || name == "..") add(names[name], position + 1);
    }
    for (auto& [name, next] : names) {
        path found = here.where / name;
        struct ::stat status {};
        if (!detail::names_something(found) || ::lstat(found.as_posix().c_str(), &status) != 0)
            continue;
        candidate const known{{found.as_posix(), DT_UNKNOWN}, AT_FDCWD};
        take(std::move(found), known, std::move(next), false, out);
    }
}

// `ends_any_depth`: "**" at the end of the pattern takes it, whatever it is.
void glob_search::take(path found, candidate const& what, positions next, bool ends_any_depth,
                       std::vector<path>& out) {
    std::size_t const end = pattern_.parts.size();
    bool const exact = ends_any_depth || (!next.empty() && next.back() == end);
    positions const all = with_nothing_for_any_depth(next);
    bool const goes_on = !all.empty() && all.front() != end;
    bool const fits = exact || (!all.empty() && all.back() == end);
    bool const must_ask = goes_on || pattern_.directories_only || !exact;
    bool const is_directory = must_ask && detail::is_directory(what.parent, what.entry, true);
    if (fits && (is_directory || (exact && !pattern_.directories_only))) out.push_back(found);
    if (goes_on && is_directory) visits_.push_back({std::move(found), std::move(next)});
}

path_range search(path const& base, glob_pattern pattern, glob_options const& how) {
    return path_range(std::make_unique<detail::path_source>(
        base.limiter(), [base, pattern = std::move(pattern), recurse = how.recurse_symlinks] {
            return std::make_unique<glob_search>(base, pattern, recurse);
        }));
}

} // namespace

path_range path::glob(std::string_view pattern, glob_options const& how) const {
    return search(*this, parse(pattern, how.case_sensitive.value_or(true)), how);
}

path_range path::rglob(std::string_view pattern, glob_options const& how) const {
    if (path(pattern).is_absolute())
        throw std::invalid_argument("the pattern '" + std::string(pattern) + "' is absolute");
    return glob("**/" + std::string(pattern), how);
}

} // namespace weft
