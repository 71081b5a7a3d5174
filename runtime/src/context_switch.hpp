#pragma once

#include "stack_pool.hpp"

#include <weft/runtime/detail/fiber.hpp>

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

/// What the sanitizers know of the stack that a worker's scheduler runs on, as long as the thread is one: mostly
/// the thread's own, but that of a fiber if run() was called inside its blocking_region.
class noted_thread_stack {
public:
    noted_thread_stack() noexcept;
    ~noted_thread_stack();
    noted_thread_stack(noted_thread_stack const&) = delete;
    noted_thread_stack& operator=(noted_thread_stack const&) = delete;

    struct contents {
        void* lowest = nullptr;
        std::size_t size = 0;
        void* sanitizer_fiber = nullptr;
    };

private:
    contents before_;
};

/// The fiber whose blocking_region the calling thread, no worker, is in; null: in none. Gives the one that was
/// set before.
fiber* exchange_fiber_in_region(fiber*) noexcept;
fiber const* fiber_in_region() noexcept;

} // namespace weft::detail
