#include <weft/io/file.hpp>

#include "file_encoding.hpp"
#include "file_state.hpp"
#include "path_call.hpp"

#include <weft/io/descriptor.hpp>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>

namespace weft {

namespace {

constexpr std::size_t usual_gather = 65536;

[[noreturn]] void refuse_mode(std::string const& mode, char const* why) {
    throw std::invalid_argument("invalid mode '" + mode + "': " + why);
}

bool has(std::string const& mode, char letter) { return mode.find(letter) != std::string::npos; }

void check_letters(std::string const& mode) {
    for (char const letter : mode) {
        if (std::string_view("rwaxbt+").find(letter) == std::string_view::npos)
            refuse_mode(mode, "it is made of r, w, a, x, b, t and +");
        if (std::ranges::count(mode, letter) > 1) refuse_mode(mode, "each letter comes once");
    }
    if (has(mode, 'b') && has(mode, 't')) refuse_mode(mode, "text and binary exclude each other");
    if (std::ranges::count_if(mode, [](char c) {
            return std::string_view("rwax").find(c) != std::string_view::npos;
        }) != 1)
        refuse_mode(mode, "it has exactly one of r, w, a and x");
}

int flags_of(std::string const& mode) {
    int flags = O_CLOEXEC | (has(mode, '+') ? O_RDWR : has(mode, 'r') ? O_RDONLY : O_WRONLY);
    if (has(mode, 'w')) flags |= O_CREAT | O_TRUNC;
    if (has(mode, 'a')) flags |= O_CREAT | O_APPEND;
    if (has(mode, 'x')) flags |= O_CREAT | O_EXCL;
    return flags;
}

void check_binary(open_options const& how) {
    if (!how.encoding.empty()) throw std::invalid_argument("a binary file takes no encoding");
    if (!how.errors.empty()) throw std::invalid_argument("a binary file takes no errors argument");
    if (how.newline) throw std::invalid_argument("a binary file takes no newline argument");
}

std::size_t gather_of(int buffering) {
    if (buffering == 0) return 0;
    return buffering > 1 ? std::size_t(buffering) : usual_gather;
}

unique_fd open_descriptor(path const& name, int flags) {
    char const* const known = detail::system_name(name);
    int fd = -1;
    do
        fd = ::open(known, flags, 0666);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) detail::throw_path_error(errno, "open", name);
    unique_fd opened(fd);
    struct ::stat status {};
    if (::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode))
        detail::throw_path_error(EISDIR, "open", name);
    return opened;
}

int flags_of_descriptor(int fd) {
    int const flags = ::fcntl(fd, F_GETFL);
    if (flags < 0)
        throw std::system_error(errno, std::system_category(),
                                "cannot wrap the descriptor " + std::to_string(fd));
    return flags;
}

detail::file_format format_of_flags(int flags) {
    detail::file_format format;
    int const access = flags & O_ACCMODE;
    format.readable = access != O_WRONLY;
    format.writable = access != O_RDONLY;
    format.at_end = (flags & O_APPEND) != 0;
    if (access == O_RDONLY) format.mode = "rb";
    if (access == O_WRONLY) format.mode = format.at_end ? "ab" : "wb";
    if (access == O_RDWR) format.mode = format.at_end ? "ab+" : "rb+";
    return format;
}

} // namespace

detail::file_request detail::parse_file_mode(std::string const& mode, open_options const& given) {
    check_letters(mode);
    if (given.buffering < -1) throw std::invalid_argument("invalid buffering size");
    file_request request;
    request.format.mode = mode;
    request.format.readable = has(mode, 'r') || has(mode, '+');
    request.format.writable = !has(mode, 'r') || has(mode, '+');
    request.format.at_end = has(mode, 'a');
    request.format.limiter = given.limiter;
    request.format.reads_ahead = given.buffering != 0;
    request.flags = flags_of(mode);
    request.buffering = given.buffering;
    if (has(mode, 'b')) {
        check_binary(given);
        return request;
    }
    if (given.buffering == 0) throw std::invalid_argument("a text file cannot be without buffer");
    request.format.text = make_text_rules(given.errors, given.newline);
    request.format.flushes_lines = given.buffering == 1;
    request.encoding = parse_text_encoding(given.encoding);
    return request;
}

std::unique_ptr<detail::file_state> detail::make_file_state(unique_fd opened, file_request request,
                                                            std::string label) {
    auto device = make_descriptor_device(opened.get(), true, std::move(label));
    opened.release();
    return make_file_state(std::move(device), std::move(request));
}

std::unique_ptr<detail::file_state> detail::make_file_state(std::unique_ptr<file_device> device,
                                                            file_request request) {
    if (request.encoding)
        device = make_transcoding_device(std::move(device), *request.encoding,
                                         request.format.text->errors);
    if (request.format.at_end && device->seekable()) device->seek(0, SEEK_END);
    request.format.gather = gather_of(request.buffering);
    return std::make_unique<file_state>(std::move(device), std::move(request.format));
}

std::unique_ptr<detail::file_state> detail::open_file_state(path const& name,
                                                            file_request request) {
    request.format.name = name;
    return make_file_state(open_descriptor(name, request.flags), std::move(request),
                           "'" + name.as_posix() + "'");
}

file open_file(path const& name, std::string mode, open_options const& how) {
    detail::file_request request = detail::parse_file_mode(mode, how);
    detail::require_fiber("open_file");
    return file(to_thread::run_sync(to_thread::options{.limiter = how.limiter}, [&] {
        return detail::open_file_state(name, std::move(request));
    }));
}

file wrap_file(int fd, bool close_fd, capacity_limiter* limiter) {
    detail::file_format format = format_of_flags(flags_of_descriptor(fd));
    auto device =
        detail::make_descriptor_device(fd, close_fd, "the descriptor " + std::to_string(fd));
    format.gather = gather_of(-1);
    format.limiter = limiter;
    return file(std::make_unique<detail::file_state>(std::move(device), std::move(format)));
}

file wrap_file(std::FILE* stream, bool close_file, capacity_limiter* limiter) {
    if (stream == nullptr) throw std::invalid_argument("there is no C stream to wrap");
    int const fd = ::fileno(stream);
    // One without descriptor, as of fmemopen(3), says itself what it allows.
    detail::file_format format = format_of_flags(fd < 0 ? O_RDWR : flags_of_descriptor(fd));
    format.gather = 0; // the stream has a buffer of its own
    format.limiter = limiter;
    return file(std::make_unique<detail::file_state>(
        detail::make_stdio_device(stream, close_file, "the C stream"), std::move(format)));
}

} // namespace weft
