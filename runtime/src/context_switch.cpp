#include "context_switch.hpp"

#include <utility>

#include <pthread.h>

#if defined(__SANITIZE_ADDRESS__)
#define WEFT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WEFT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define WEFT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WEFT_TSAN 1
#endif
#endif

#if defined(WEFT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(WEFT_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif

namespace weft::detail {

namespace fc = boost::context::detail;

namespace {

// For the sanitizers. Reached only by functions that do not switch.
thread_local noted_thread_stack::contents own_stack;
constinit thread_local fiber* in_region = nullptr; // a signal handler looks, too

[[gnu::noinline]] noted_thread_stack::contents& this_thread_stack() noexcept {
    noted_thread_stack::contents* found = &own_stack;
    asm volatile("" : "+r"(found) : : "memory");
    return *found;
}

#if defined(WEFT_ASAN)
[[gnu::noinline]] void announce_to_asan(void** keep, stack* to) noexcept {
    if (to != nullptr) {
        __sanitizer_start_switch_fiber(keep, to->lowest, to->size);
    } else {
        noted_thread_stack::contents const& own = this_thread_stack();
        __sanitizer_start_switch_fiber(keep, own.lowest, own.size);
    }
}
#endif

#if defined(WEFT_TSAN)
[[gnu::noinline]] void announce_to_tsan(stack* to) noexcept {
    void* target = to != nullptr ? to->sanitizer_fiber : this_thread_stack().sanitizer_fiber;
    __tsan_switch_to_fiber(target, 0);
}
#endif

void enter_first(fc::transfer_t from) noexcept {
    // Unwinding ends here: the assembly below made no frame that could be described.
#if defined(__x86_64__)
    asm volatile(".cfi_undefined rip");
#elif defined(__aarch64__)
    asm volatile(".cfi_undefined x30");
#endif
#if defined(WEFT_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    run_on_new_stack(from.fctx);
}

} // namespace

noted_thread_stack::noted_thread_stack() noexcept : before_(this_thread_stack()) {
    contents& own = this_thread_stack();
    pthread_attr_t attributes;
    if (in_region != nullptr) {
        own.lowest = in_region->stack->lowest;
        own.size = in_region->stack->size;
    } else if (::pthread_getattr_np(::pthread_self(), &attributes) == 0) {
        ::pthread_attr_getstack(&attributes, &own.lowest, &own.size);
        ::pthread_attr_destroy(&attributes);
    }
#if defined(WEFT_TSAN)
    own.sanitizer_fiber = __tsan_get_current_fiber();
#endif
}

noted_thread_stack::~noted_thread_stack() {
    this_thread_stack() = before_;
}

[[gnu::noinline]] fiber* exchange_fiber_in_region(fiber* by) noexcept {
    return std::exchange(in_region, by);
}

[[gnu::noinline]] fiber const* fiber_in_region() noexcept {
    fiber const* found = in_region;
    asm volatile("" : "+r"(found) : : "memory");
    return found;
}

#if defined(WEFT_ASAN) || defined(WEFT_TSAN)
[[gnu::noinline]] void* switch_context(void* to, stack* to_stack) noexcept {
    (void)to_stack;
#if defined(WEFT_ASAN)
    void* fake_stack = nullptr;
    announce_to_asan(&fake_stack, to_stack);
#endif
#if defined(WEFT_TSAN)
    announce_to_tsan(to_stack);
#endif
    fc::transfer_t const back = fc::jump_fcontext(to, nullptr);
#if defined(WEFT_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
    return back.fctx;
}
#endif

void* make_context(stack& on) noexcept {
#if defined(WEFT_TSAN)
    if (on.sanitizer_fiber == nullptr) on.sanitizer_fiber = __tsan_create_fiber(0);
#endif
#if defined(VALGRIND_STACK_REGISTER)
    if (on.valgrind_id == 0) on.valgrind_id = VALGRIND_STACK_REGISTER(on.lowest, on.top()) + 1u;
#endif
    return fc::make_fcontext(on.top(), on.size, enter_first);
}

void destroy_sanitizer_fiber(stack& of) noexcept {
    (void)of;
#if defined(WEFT_ASAN)
    ASAN_UNPOISON_MEMORY_REGION(of.lowest, of.size); // the frames that waited for the next fiber
#endif
#if defined(WEFT_TSAN)
    if (of.sanitizer_fiber != nullptr) __tsan_destroy_fiber(of.sanitizer_fiber);
    of.sanitizer_fiber = nullptr;
#endif
#if defined(VALGRIND_STACK_DEREGISTER)
    if (of.valgrind_id != 0) VALGRIND_STACK_DEREGISTER(of.valgrind_id - 1);
    of.valgrind_id = 0;
#endif
}

} // namespace weft::detail
