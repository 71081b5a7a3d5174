#include "site.hpp"

#include <weft/sync/to_thread.hpp>

#include <cctype>
#include <cerrno>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace http_files {

namespace {

std::optional<int> hex_digit(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    char const small = char(std::tolower(static_cast<unsigned char>(digit)));
    if (small >= 'a' && small <= 'f') return small - 'a' + 10;
    return std::nullopt;
}

// Nothing: it is not encoded as it must be, or says NUL.
std::optional<std::string> decode(std::string_view text) {
    std::string result;
    for (std::size_t place = 0; place < text.size(); ++place) {
        if (text[place] != '%') {
            result += text[place];
            continue;
        }
        if (place + 2 >= text.size()) return std::nullopt;
        auto const high = hex_digit(text[place + 1]);
        auto const low = hex_digit(text[place + 2]);
        if (!high || !low || (*high == 0 && *low == 0)) return std::nullopt;
        result += char(*high * 16 + *low);
        place += 2;
    }
    return result;
}

std::string type_of(weft::path const& file) {
    struct known {
        std::string_view suffix;
        char const* type;
    };
    static constexpr known all[] = {
        {".html", "text/html; charset=utf-8"}, {".css", "text/css; charset=utf-8"},
        {".js", "text/javascript"},            {".txt", "text/plain; charset=utf-8"},
        {".json", "application/json"},         {".svg", "image/svg+xml"},
        {".png", "image/png"},                 {".jpg", "image/jpeg"},
    };
    std::string const suffix = file.suffix();
    for (known const& each : all)
        if (each.suffix == suffix) return each.type;
    return "application/octet-stream";
}

int status_for(int error) {
    switch (error) {
    case EACCES:
    case EPERM:
        return 403;
    case EAGAIN: // directories are being renamed
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return 503;
    default:
        return 404;
    }
}

// Symbolic links lead nowhere else, either.
weft::unique_fd open_beneath(int root, weft::path const& name, int flags) {
    ::open_how how{};
    how.flags = std::uint64_t(flags | O_CLOEXEC);
    how.resolve = RESOLVE_BENEATH;
    return weft::unique_fd(int(::syscall(SYS_openat2, root, name.as_posix().c_str(), &how, sizeof how)));
}

// Looked at before it is opened: to open a FIFO would be to read from it, for whoever writes there.
found_file open_in_this_thread(int root, weft::path name, bool as_directory) {
    for (int flags = O_PATH;;) {
        weft::unique_fd fd = open_beneath(root, name, flags);
        struct ::stat about {};
        if (!fd || ::fstat(fd.get(), &about) != 0) return {{}, status_for(errno), 0, {}};
        if (S_ISDIR(about.st_mode) && name.name() != "index.html") {
            name = name / "index.html";
            as_directory = false;
        } else if (!S_ISREG(about.st_mode) || as_directory) {
            return {{}, 404, 0, {}};
        } else if (flags != O_PATH) {
            return {std::move(fd), 200, std::uint64_t(about.st_size), type_of(name)};
        } else {
            flags = O_RDONLY | O_NONBLOCK | O_NOCTTY; // it may be another one by now
        }
    }
}

} // namespace

site::site(weft::path const& root)
    : root_(::open(root.as_posix().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    if (!root_) throw std::system_error(errno, std::system_category(), root.as_posix());
    if (!open_beneath(root_.get(), ".", O_PATH)) // no such call before Linux 5.6
        throw std::system_error(errno, std::system_category(), "openat2 in " + root.as_posix());
}

found_file site::open(std::string const& target) const {
    auto const decoded = decode(std::string_view(target).substr(0, target.find_first_of("?#")));
    if (!decoded || !decoded->starts_with('/')) return {{}, 400, 0, {}};
    weft::path const wanted(decoded->substr(decoded->find_first_not_of('/') == std::string::npos
                                                ? decoded->size()
                                                : decoded->find_first_not_of('/')));
    for (std::string const& part : wanted.parts())
        if (part.starts_with('.')) return {{}, 404, 0, {}}; // ".." among them
    return weft::to_thread::run_sync(open_in_this_thread, root_.get(), wanted, decoded->ends_with('/'));
}

} // namespace http_files
