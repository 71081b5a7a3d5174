#include <weft/io/temp.hpp>

#include "file_encoding.hpp"
#include "file_state.hpp"
#include "path_call.hpp"
#include "temp_spool.hpp"
#include "temp_tree.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/sync/detail/thread_call.hpp>
#include <weft/sync/to_thread.hpp>

#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace weft {

namespace {

constexpr int attempts = 10000;             // names are tried so often
constexpr std::size_t removed_at_once = 64; // names that a destructor removes itself
constexpr int private_file = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;

// -- Names. All of this blocks --------------------------------------------------------------------

bool is_usable_directory(path const& name) {
    struct ::stat status {};
    char const* const known = name.as_posix().c_str();
    return ::stat(known, &status) == 0 && S_ISDIR(status.st_mode) &&
           ::faccessat(AT_FDCWD, known, W_OK | X_OK, AT_EACCESS) == 0;
}

path absolute_path(path const& name) {
    if (name.is_absolute()) return name;
    std::unique_ptr<char, void (*)(void*)> const here(::getcwd(nullptr, 0), std::free);
    if (!here) throw std::system_error(errno, std::system_category(), "no current directory");
    return path(here.get()) / name;
}

path usual_directory() {
    std::vector<path> candidates;
    for (char const* const variable : {"TMPDIR", "TEMP", "TMP"})
        if (char const* const value = std::getenv(variable); value != nullptr && *value != '\0')
            candidates.emplace_back(value);
    for (char const* const name : {"/tmp", "/var/tmp", "/usr/tmp", "."})
        candidates.emplace_back(name);
    for (path const& each : candidates)
        if (is_usable_directory(each)) return absolute_path(each);
    throw std::system_error(ENOENT, std::system_category(), "no usable temporary directory");
}

std::string random_name() {
    constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyz0123456789_"; // 37^8 names
    unsigned char octets[8];
    while (::getrandom(octets, sizeof octets, 0) != ssize_t(sizeof octets)) {
    }
    std::string name;
    for (unsigned char const octet : octets)
        name += letters[octet % letters.size()];
    return name;
}

void check_part(char const* what, std::string const& part) {
    if (part.find_first_of(std::string_view("/\0", 2)) != std::string::npos)
        throw std::invalid_argument(std::string("a slash or NUL in the ") + what + " '" + part +
                                    "'");
}

// make(name) gives whether it is made; errno says why not.
template <class Make> path make_unique(temporary_options const& how, char const* what, Make make) {
    path const directory = how.directory ? absolute_path(*how.directory) : usual_directory();
    detail::system_name(directory);
    for (int i = 0; i < attempts; ++i) {
        path name = directory / (how.prefix + random_name() + how.suffix);
        if (make(name.as_posix().c_str())) return name; // moved: it exists, nothing may fail now
        if (errno != EEXIST) detail::throw_path_error(errno, what, name);
    }
    detail::throw_path_error(EEXIST, what, directory);
}

named_descriptor make_file(temporary_options const& how) {
    unique_fd made;
    path name = make_unique(how, "make the temporary file", [&made](char const* tried) {
        made.reset(::open(tried, private_file, S_IRUSR | S_IWUSR));
        return bool(made);
    });
    return {std::move(made), std::move(name)};
}

path make_directory(temporary_options const& how) {
    return make_unique(how, "make the temporary directory",
                       [](char const* tried) { return ::mkdir(tried, S_IRWXU) == 0; });
}

// Not every file system knows files that never had a name.
unique_fd make_nameless(temporary_options const& how) {
    path const directory = how.directory ? *how.directory : usual_directory();
    unique_fd made(::open(detail::system_name(directory), O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL,
                          S_IRUSR | S_IWUSR));
    if (made) return made;
    named_descriptor named = make_file(how);
    if (::unlink(named.name.as_posix().c_str()) != 0)
        detail::throw_path_error(errno, "unlink", named.name);
    return std::move(named.fd);
}

void check_name(temporary_options const& how) {
    check_part("prefix", how.prefix);
    check_part("suffix", how.suffix);
}

temporary_options name_of(temporary_file_options const& how) {
    temporary_options name{how.suffix, how.prefix, how.directory};
    check_name(name);
    return name;
}

// What happens whether or not the task is cancelled; that is noticed afterwards.
template <class Act>
void finish_in_thread(capacity_limiter* limiter, Act act, char const* call = __builtin_FUNCTION()) {
    detail::require_fiber(call);
    shielded([&] { to_thread::run_sync(to_thread::options{.limiter = limiter}, [&act] { act(); }); });
    lowlevel::checkpoint_if_cancelled();
}

} // namespace

// -- Functions ------------------------------------------------------------------------------------

path gettempdir() {
    return detail::act_in_thread(nullptr, [] { return usual_directory(); });
}

named_descriptor mkstemp(temporary_options const& how) {
    check_name(how);
    return detail::act_in_thread(nullptr, [&how] { return make_file(how); });
}

path mkdtemp(temporary_options const& how) {
    check_name(how);
    return detail::act_in_thread(nullptr, [&how] { return make_directory(how); });
}

file temporary_file(temporary_file_options const& how) {
    temporary_options const name = name_of(how);
    detail::file_request request = detail::parse_file_mode(how.mode, how.open);
    return file(detail::act_in_thread(how.open.limiter, [&] {
        return detail::make_file_state(make_nameless(name), std::move(request), "a temporary file");
    }));
}

// -- Named files ----------------------------------------------------------------------------------

detail::owned_name::~owned_name() {
    if (name_) ::unlink(name_->as_posix().c_str());
}

detail::owned_name& detail::owned_name::operator=(owned_name&& other) noexcept {
    owned_name moved(std::move(other));
    std::swap(name_, moved.name_);
    return *this;
} // what it had ends here

void detail::owned_name::remove() {
    std::optional<path> const name = std::exchange(name_, {});
    if (name && ::unlink(name->as_posix().c_str()) != 0 && errno != ENOENT)
        throw_path_error(errno, "unlink", *name);
}

struct named_temporary_file::opened {
    path name;
    detail::owned_name owned;
    std::unique_ptr<detail::file_state> state;
    bool on_close;

    static opened make(temporary_file_options const& how) {
        temporary_options const name = name_of(how);
        detail::file_request request = detail::parse_file_mode(how.mode, how.open);
        auto const act = [&] {
            named_descriptor made = make_file(name);
            detail::owned_name owned(std::move(made.name)); // before anything may fail
            path known = owned.name();
            request.format.name = known;
            auto opened_file = detail::make_file_state(std::move(made.fd), std::move(request),
                                                       "'" + known.as_posix() + "'");
            if (!how.delete_file) owned.release();
            return opened{std::move(known), std::move(owned), std::move(opened_file),
                          how.delete_on_close};
        };
        return detail::act_in_thread(how.open.limiter, act, "named_temporary_file");
    }
};

named_temporary_file::named_temporary_file(temporary_file_options const& how)
    : named_temporary_file(opened::make(how)) {}

named_temporary_file::named_temporary_file(opened made)
    : file(std::move(made.state)), name_(std::move(made.name)), owned_(std::move(made.owned)),
      on_close_(made.on_close) {}

// The name goes also where the last data could not be written; that failure is the one to hear of.
void named_temporary_file::close() {
    detail::require_fiber("close");
    try {
        shielded([this] { file::close(); });
    } catch (std::exception const&) {
        if (on_close_) owned_ = {};
        throw;
    }
    if (on_close_ && !owned_.is_empty())
        finish_in_thread(state().format.limiter, [this] { owned_.remove(); });
    else
        lowlevel::checkpoint_if_cancelled();
}

// -- Spooled files --------------------------------------------------------------------------------

struct spooled_temporary_file::made {
    std::unique_ptr<detail::file_state> state;
    detail::spooled_device* device;

    static made make(std::size_t max_size, temporary_file_options const& how) {
        detail::file_request request = detail::parse_file_mode(how.mode, how.open);
        auto spooled = std::make_unique<detail::spooled_device>(max_size, [name = name_of(how)] {
            unique_fd fd = make_nameless(name);
            auto rolled_over = detail::make_descriptor_device(fd.get(), true, "a temporary file");
            fd.release();
            return rolled_over;
        });
        detail::spooled_device* const device = spooled.get();
        return {detail::make_file_state(std::move(spooled), std::move(request)), device};
    }
};

spooled_temporary_file::spooled_temporary_file(std::size_t max_size,
                                               temporary_file_options const& how)
    : spooled_temporary_file(made::make(max_size, how)) {
    detail::check_cancellation("spooled_temporary_file");
}

spooled_temporary_file::spooled_temporary_file(made parts)
    : file(std::move(parts.state)), device_(parts.device) {}

void spooled_temporary_file::rollover() {
    detail::require_fiber("rollover");
    std::lock_guard const turn(state().turn);
    state().require_open();
    if (!device_->rolled())
        detail::act_in_thread(state().format.limiter, [this] { device_->rollover(); });
}

bool spooled_temporary_file::rolled() const {
    state().require_open();
    return device_->rolled();
}

// -- Directories ----------------------------------------------------------------------------------

namespace {

void remove_quickly(path const& name) {
    auto const removal = std::make_shared<detail::tree_removal>(name);
    if (removal->remove_some(removed_at_once)) return;
    auto const finish = [removal] {
        while (!removal->remove_some(removed_at_once)) {
        }
    };
    using call = detail::typed_thread_call<void, decltype(finish)>;
    std::shared_ptr<call> rest;
    try {
        rest = std::make_shared<call>(std::in_place, finish);
    } catch (std::bad_alloc const&) { // here, then
    }
    if (rest == nullptr || !detail::run_in_background(rest)) finish();
}

} // namespace

static path new_directory(temporary_directory_options const& how) {
    detail::require_fiber("temporary_directory");
    return mkdtemp({how.suffix, how.prefix, how.directory});
}

temporary_directory::temporary_directory(temporary_directory_options const& how)
    : name_(new_directory(how)), remove_(how.delete_directory),
      ignore_errors_(how.ignore_cleanup_errors) {}

temporary_directory::temporary_directory(temporary_directory&& other) noexcept
    : name_(std::move(other.name_)), remove_(std::exchange(other.remove_, false)),
      ignore_errors_(other.ignore_errors_) {}

temporary_directory& temporary_directory::operator=(temporary_directory&& other) noexcept {
    temporary_directory moved(std::move(other));
    std::swap(name_, moved.name_);
    std::swap(remove_, moved.remove_);
    std::swap(ignore_errors_, moved.ignore_errors_);
    return *this;
} // what it had ends here

temporary_directory::~temporary_directory() {
    if (!remove_) return;
    try {
        remove_quickly(name_);
    } catch (std::exception const&) { // no memory: what is still there is left
    }
}

void temporary_directory::close() {
    if (!remove_) return lowlevel::checkpoint_if_cancelled();
    finish_in_thread(nullptr, [this] {
        detail::tree_removal removal(name_);
        while (!removal.remove_some(removed_at_once)) {
        }
        // Not before, and not without descriptors: then it is left to another close(), or to the destructor.
        remove_ = removal.fell_short();
        if (removal.failure() && !ignore_errors_) std::rethrow_exception(removal.failure());
    });
}

} // namespace weft
