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
#if defined(__x86_64__)
    // jump_fcontext leaves by a jump, not by `ret`. Entered by `call`, it would put the processor's stack
    // of return addresses out of step: each `ret` of the fiber that goes on would be predicted wrongly,
    // which costs more than the switch. So it is entered by a jump, too. (-mno-red-zone: we push.)
    void* from;
    asm volatile("leaq 1f(%%rip), %%rax\n\t"
                 "pushq %%rax\n\t"
                 "jmp jump_fcontext@PLT\n"
                 "1:"
                 : "=a"(from), "+D"(to)
                 :
                 : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3",
                   "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                   "xmm14", "xmm15", "memory", "cc");
    return from;
#else
    return boost::context::detail::jump_fcontext(to, nullptr).fctx;
#endif
}
#endif

/// The first context of a stack: runs run_on_new_stack(where it was entered from).
void* make_context(stack&) noexcept;
[[noreturn]] void run_on_new_stack(void* from) noexcept; // defined by the scheduler

void destroy_sanitizer_fiber(stack&) noexcept;

/// What the sanitizers know of a thread's own stack; set when a thread becomes a worker.
void note_thread_stack() noexcept;

} // namespace weft::detail
