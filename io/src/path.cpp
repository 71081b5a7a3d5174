#include <weft/io/path.hpp>

#include <algorithm>
#include <ostream>
#include <stdexcept>

namespace weft {

namespace {

constexpr char separator = '/';

[[noreturn]] void refuse(std::string const& why) { throw std::invalid_argument(why); }

// POSIX leaves the meaning of exactly two leading slashes to the system; more are one.
std::size_t leading_root(std::string_view text) {
    std::size_t const slashes = std::min(text.find_first_not_of(separator), text.size());
    return slashes <= 2 ? slashes : 1;
}

bool is_name(std::string_view name) {
    return !name.empty() && name != "." && name.find(separator) == std::string_view::npos;
}

// Where the suffix begins; the size if there is none. A dot at either end makes none.
std::size_t suffix_of(std::string_view name) {
    std::size_t const dot = name.rfind('.');
    bool const inside = dot != std::string_view::npos && dot > 0 && dot + 1 < name.size();
    return inside ? dot : name.size();
}

// Calls for each part between slashes.
template <class Visit> void for_each_name(std::string_view names, Visit visit) {
    while (!names.empty()) {
        std::size_t const end = std::min(names.find(separator), names.size());
        visit(names.substr(0, end));
        names.remove_prefix(std::min(end + 1, names.size()));
    }
}

} // namespace

path::path(std::string_view text) {
    if (text.starts_with('\0')) { // no file's: a socket's abstract name, in which each octet counts
        text_ = text;
        return;
    }
    text_.reserve(text.size());
    text_.assign(leading_root(text), separator);
    std::size_t const root = text_.size();
    for_each_name(text.substr(root), [&](std::string_view name) {
        if (name.empty() || name == ".") return;
        if (text_.size() > root) text_ += separator;
        text_ += name;
    });
}

std::string const& path::text() const {
    static auto const& here = *new std::string("."); // for destructors of static objects, too
    return text_.empty() ? here : text_;
}

std::size_t path::root_length() const { return leading_root(text_); }

std::string_view path::name_view() const {
    std::string_view const all = names();
    return all.substr(all.rfind(separator) + 1); // npos + 1 is 0
}

void path::append(path const& other) {
    if (other.is_absolute() || text_.empty()) {
        text_ = other.text_;
        return;
    }
    if (other.text_.empty()) return;
    std::string added = other.text_; // it may be this one
    if (text_.size() > root_length()) text_ += separator;
    text_ += added;
}

// "a/b" comes before "a-b", as the lists of their parts do: the slash is the least of characters.
std::strong_ordering path::compare(std::string_view left, std::string_view right) {
    auto const rank = [](char c) {
        return c == separator ? -1 : int(static_cast<unsigned char>(c));
    };
    auto const [l, r] = std::ranges::mismatch(left, right);
    if (l == left.end() || r == right.end()) return left.size() <=> right.size();
    return rank(*l) <=> rank(*r);
}

std::vector<std::string> path::parts() const {
    std::vector<std::string> result;
    if (is_absolute()) result.push_back(root());
    for_each_name(names(), [&](std::string_view name) { result.emplace_back(name); });
    return result;
}

std::string path::root() const { return text_.substr(0, root_length()); }

path path::parent() const {
    path result = *this;
    std::size_t const cut = text_.rfind(separator);
    std::size_t const above = cut == std::string::npos ? 0 : cut;
    result.text_.resize(std::max(std::min(above, text_.size()), root_length()));
    return result;
}

std::vector<path> path::parents() const {
    std::vector<path> result;
    for (path at = *this; !at.names().empty();)
        result.push_back(at = at.parent());
    return result;
}

std::string path::name() const { return std::string(name_view()); }

std::string path::suffix() const {
    std::string_view const name = name_view();
    return std::string(name.substr(suffix_of(name)));
}

std::vector<std::string> path::suffixes() const {
    std::vector<std::string> result;
    std::string_view name = name_view();
    if (name.empty() || name.back() == '.') return result;
    name.remove_prefix(std::min(name.find_first_not_of('.'), name.size()));
    for (std::size_t dot = name.find('.'); dot != std::string_view::npos;) {
        std::size_t const next = name.find('.', dot + 1);
        result.emplace_back(name.substr(dot, next - dot));
        dot = next;
    }
    return result;
}

std::string path::stem() const {
    std::string_view const name = name_view();
    return std::string(name.substr(0, suffix_of(name)));
}

bool path::is_relative_to(path const& other) const {
    if (other.root_length() != root_length()) return false;
    std::string_view const mine = names();
    std::string_view const theirs = other.names();
    return mine.starts_with(theirs) &&
           (theirs.empty() || mine.size() == theirs.size() || mine[theirs.size()] == separator);
}

path path::relative_to(path const& other, relative_to_options const& how) const {
    std::string const pair = "'" + text() + "' and '" + other.text() + "'";
    path base = other;
    std::string up;
    while (!is_relative_to(base)) {
        if (!how.walk_up)
            refuse("'" + text() + "' is not in the subpath of '" + other.text() + "'");
        if (base.names().empty()) refuse(pair + " have different anchors");
        if (base.name_view() == "..")
            refuse("'..' segment in '" + other.text() + "' cannot be walked");
        up += "../";
        base = base.parent();
    }
    std::string_view rest = names().substr(base.names().size());
    if (rest.starts_with(separator)) rest.remove_prefix(1);
    return keep(path(up).joinpath(rest));
}

// The name, where one is needed.
std::string_view path::nonempty_name() const {
    std::string_view const name = name_view();
    if (name.empty()) refuse("'" + text() + "' has an empty name");
    return name;
}

path path::with_name(std::string_view name) const {
    std::size_t const old = nonempty_name().size();
    if (!is_name(name)) refuse("invalid name '" + std::string(name) + "'");
    path result = *this;
    result.text_.replace(text_.size() - old, old, name);
    return result;
}

path path::with_stem(std::string_view stem) const {
    std::string const suffix = this->suffix();
    if (stem.empty() && !suffix.empty())
        refuse("'" + text() + "' has a suffix, so its stem cannot be empty");
    return with_name(std::string(stem) + suffix);
}

path path::with_suffix(std::string_view suffix) const {
    bool const valid = suffix.empty() || (suffix.size() > 1 && suffix.front() == '.' &&
                                          suffix.find(separator) == std::string_view::npos);
    if (!valid) refuse("invalid suffix '" + std::string(suffix) + "'");
    nonempty_name();
    return with_name(stem() + std::string(suffix));
}

std::ostream& operator<<(std::ostream& out, path const& shown) { return out << shown.text(); }

} // namespace weft
