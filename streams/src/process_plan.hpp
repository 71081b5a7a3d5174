#pragma once

#include <weft/io/descriptor.hpp>
#include <weft/io/detail/child_process.hpp>
#include <weft/streams/process.hpp>

namespace weft::detail {

/// A plan with the descriptors that it needs, and our ends of the pipes.
struct prepared_process {
    child_plan plan;
    unique_fd null;
    unique_fd theirs[3]; ///< closed here once the child has them
    unique_fd ours[3];   ///< none where there is no pipe
};

/// Errors: std::invalid_argument, std::system_error (EMFILE)
prepared_process prepare_process(command const&, process_options const&, standard_stream input);

/// Looks the names of users and groups up. Blocks: for threads. Errors: std::invalid_argument,
/// std::system_error (it cannot be told)
void resolve_accounts(child_plan&, process_options const&);

} // namespace weft::detail
