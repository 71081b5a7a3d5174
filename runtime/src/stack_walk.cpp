#include "stack_walk.hpp"

#include <dlfcn.h>
#include <unwind.h>

// The stack of a fiber that waits is unwound by the unwinder of exceptions, from where the fiber left. It
// always starts at its own caller; that is weft_unwind_from(), whose unwind information says that it was
// called from the saved context: where jump_fcontext (Boost 1.81 and later) has put the registers.
//
//   context + 0x10  r12, r13, r14, r15, rbx, rbp, return address; then what the fiber had on its stack
//
// Rejected: frame pointers, which the program may not have, and which cost each function a register;
// a signal, which reaches threads, not fibers; running the unwinder on the fiber's own stack, which may have no
// room left, and of which each fiber in a dump would touch pages that it never needed.

namespace weft::detail {

namespace {

struct trail {
    void** frames;
    std::size_t most;
    std::size_t count;
    std::size_t to_skip; // the unwinder's callers
};

_Unwind_Reason_Code note_frame(_Unwind_Context* context, void* argument) noexcept {
    auto& seen = *static_cast<trail*>(argument);
    if (seen.to_skip > 0) {
        --seen.to_skip;
        return _URC_NO_REASON;
    }
    auto const address = _Unwind_GetIP(context);
    if (address == 0 || seen.count == seen.most) return _URC_END_OF_STACK;
    seen.frames[seen.count++] = reinterpret_cast<void*>(address);
    return _URC_NO_REASON;
}

} // namespace

#if defined(__x86_64__) && !defined(__ILP32__)

extern "C" [[gnu::visibility("hidden")]] void weft_unwind_from(void* context, _Unwind_Trace_Fn, void*);

asm(R"(
    .pushsection .text
    .globl weft_unwind_from
    .hidden weft_unwind_from
    .type weft_unwind_from, @function
weft_unwind_from:
    .cfi_startproc
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbx, 0
    movq %rdi, %rbx
    movq %rsi, %rdi
    movq %rdx, %rsi
    .cfi_remember_state
    .cfi_def_cfa rbx, 0x48
    .cfi_offset rip, -0x08
    .cfi_offset rbp, -0x10
    .cfi_offset rbx, -0x18
    .cfi_offset r15, -0x20
    .cfi_offset r14, -0x28
    .cfi_offset r13, -0x30
    .cfi_offset r12, -0x38
    call _Unwind_Backtrace@PLT
    nop
    .cfi_restore_state
    popq %rbx
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_endproc
    .size weft_unwind_from, .-weft_unwind_from
    .popsection
)");

// Another Boost might put the registers elsewhere; the switch itself is ours.
static bool is_layout_known(void* context) noexcept {
    void* const left_at = *reinterpret_cast<void**>(static_cast<char*>(context) + 0x40);
    Dl_info its{}, ours{};
    return ::dladdr(left_at, &its) != 0 &&
           ::dladdr(reinterpret_cast<void*>(&walk_context), &ours) != 0 &&
           its.dli_fbase == ours.dli_fbase;
}

std::size_t walk_context(void* context, void** frames, std::size_t most) noexcept {
    if (!is_layout_known(context)) return 0;
    trail seen{frames, most, 0, 1};
    weft_unwind_from(context, note_frame, &seen);
    return seen.count;
}

#else

std::size_t walk_context(void*, void**, std::size_t) noexcept {
    return 0;
}

#endif

[[gnu::noinline]] std::size_t walk_here(void** frames, std::size_t most) noexcept {
    trail seen{frames, most, 0, 2};
    _Unwind_Backtrace(note_frame, &seen);
    return seen.count;
}

} // namespace weft::detail
