#include <weft/io/path.hpp>

#include "path_call.hpp"

#include <cerrno>
#include <climits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

namespace weft {

namespace {

// What a path really is, link by link. A link that has been followed is not followed again: its
// result is known, or it is being followed, which is a loop.
class resolver {
public:
    explicit resolver(bool strict) : strict_(strict) {}

    path resolve(path const& name) {
        detail::system_name(name);
        path at = "/";
        if (!name.is_absolute()) append(at, current());
        if (append(at, name)) return at;
        return without_parent_steps(at);
    }

private:
    static path current() {
        char space[PATH_MAX];
        if (::getcwd(space, sizeof space) == nullptr)
            throw std::system_error(errno, std::system_category(), "no current directory");
        return space;
    }

    // False: a loop; the rest is appended as it is.
    bool append(path& at, path const& more) {
        std::vector<std::string> const parts = more.parts();
        bool good = true;
        for (std::string const& part : parts) {
            if (part.front() == '/')
                at = "/";
            else if (!good)
                at /= part;
            else if (part == "..")
                at = at.parent(); // there is no link in it
            else
                good = step(at, at / part);
        }
        return good;
    }

    bool step(path& at, path const& next) {
        std::optional<path> const target = link_at(next);
        if (!target) {
            at = next;
            return true;
        }
        auto const [known, fresh] = results_.try_emplace(next.as_posix());
        struct level {
            int& depth;
            ~level() { --depth; }
        } const guard{++depth_};
        if (!fresh) {
            if (known->second) {
                at = *known->second;
                return true;
            }
            return give_up(at, next);
        }
        if (depth_ > most_links) return give_up(at, next);
        if (!append(at, *target)) return false;
        known->second = at;
        return true;
    }

    bool give_up(path& at, path const& next) const {
        if (strict_) detail::throw_path_error(ELOOP, "resolve", next);
        at = next;
        return false;
    }

    std::optional<path> link_at(path const& name) const {
        char target[PATH_MAX];
        ssize_t const length = ::readlink(name.as_posix().c_str(), target, sizeof target);
        if (length >= 0) return path(std::string_view(target, std::size_t(length)));
        if (strict_ && errno != EINVAL) detail::throw_path_error(errno, "resolve", name);
        return {}; // no link, or nothing at all
    }

    // Behind a loop nothing is known any more: the text decides.
    static path without_parent_steps(path const& name) {
        path result;
        for (std::string const& part : name.parts())
            result = part == ".." ? result.parent() : result / part;
        return result;
    }

    static constexpr int most_links = 256; // through one another; the kernel follows 40 in all

    bool strict_;
    int depth_ = 0;
    std::map<std::string, std::optional<path>> results_; // none: being followed
};

} // namespace

path path::resolve(resolve_options const& how) const {
    return keep(detail::look_in_thread(
        limiter_, [name = *this, strict = how.strict] { return resolver(strict).resolve(name); }));
}

} // namespace weft
