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

/// Threads       a value; open() by any task
/// Cancellation  open() is a cancellation point
class site {
public:
    explicit site(weft::path root) : root_(std::move(root)) {}

    /// A directory is its index.html; nothing above the root, no names with a dot in front.
    found_file open(std::string const& target) const;

private:
    weft::path root_;
};

} // namespace http_files
