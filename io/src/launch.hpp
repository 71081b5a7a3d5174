#pragma once

#include <weft/io/descriptor.hpp>
#include <weft/io/detail/child_process.hpp>

namespace weft::detail {

struct launched {
    ::pid_t pid;
    unique_fd pidfd;
};

/// Starts the child; it shares our memory until it executes its program, and the calling thread
/// stands still meanwhile. Errors: std::system_error
launched launch(child_plan const&);

} // namespace weft::detail
