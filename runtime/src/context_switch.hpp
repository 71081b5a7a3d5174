#pragma once

#include "stack_pool.hpp"

#include <boost/context/detail/fcontext.hpp>

#include <cstddef>

namespace weft::detail {

/// A switch to another context of the calling thread, with everything that watches told of it:
/// AddressSanitizer and ThreadSanitizer at each switch, Valgrind when a stack is first used.
///
/// Gives the context from which the switch came that ended this one.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
void* switch_context(void* to, stack* to_stack) noexcept;
#else
inline void* switch_context(void* to, stack*) noexcept {
    return boost::context::detail::jump_fcontext(to, nullptr).fctx;
}
#endif

/// The first context of a stack: runs run_on_new_stack(where it was entered from).
void* make_context(stack&) noexcept;
[[noreturn]] void run_on_new_stack(void* from) noexcept; // defined by the scheduler

void destroy_sanitizer_fiber(stack&) noexcept;

/// What the sanitizers know of a thread's own stack; set when a thread becomes a worker.
void note_thread_stack() noexcept;

} // namespace weft::detail
