#pragma once

#include <weft/io/descriptor.hpp>
#include <weft/io/path.hpp>

#include <cstdint>
#include <string>

/// The files of one directory, by the targets of requests.
namespace http_files {

struct found_file {
    weft::unique_fd fd; // none: status says why
    int status = 200;
    std::uint64_t size = 0;
    std::string type;
};

/// Threads       open() by any task
/// Cancellation  open() is a cancellation point
class site {
public:
    /// Errors: std::system_error (no directory, or none that may be entered)
    explicit site(weft::path const& root);

    /// A directory is its index.html; nothing outside of the root, be it by symbolic links, no names
    /// with a dot in front.
    found_file open(std::string const& target) const;

private:
    weft::unique_fd root_;
};

} // namespace http_files
