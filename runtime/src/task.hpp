#pragma once

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/inspect.hpp>

#include <string>

namespace weft::detail {

/// Runs the body of the task that is the current fiber, to the end of its life.
void run_task(fiber&) noexcept;

/// The end of a task that could not be begun, as if its body had thrown this.
void fail_unstarted(fiber&, std::exception_ptr) noexcept;

void release_reference(fiber&) noexcept;
void add_reference(fiber&) noexcept;

/// For people. Of a live task, or one that is held by a reference.
std::string task_name(fiber const&);
std::string describe_origin(fiber const&); // name and spawn site
std::string describe_address(void const*); // symbol and offset
task_info describe(fiber&);

/// Lets others run; no cancellation point.
void yield_current() noexcept;

} // namespace weft::detail
