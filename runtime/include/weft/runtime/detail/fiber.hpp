#pragma once

#include <weft/runtime/detail/spinlock.hpp>
#include <weft/runtime/detail/wait_list.hpp>
#include <weft/runtime/detail/wait_word.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/time.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <typeinfo>

namespace weft {
class cancel_scope;
}

namespace weft::detail {

class runtime;
class group_state;
class value_store;
struct stack;
struct fiber;

/// What a fiber must look at before it waits: read with one relaxed load at each entry of a
/// blocking-style call.
struct attention {
    static constexpr std::uint8_t cancel = 1; ///< a scope around may be cancelled: walk and see
    static constexpr std::uint8_t clock = 2;  ///< it has run for long: deadlines not yet armed may have passed
};

/// How the body of a task is run and destroyed; one static table for each type of body.
struct body_operations {
    void (*run)(fiber&, void* body);       ///< may throw; leaves a result in its place, if it has one
    void (*destroy_body)(void* body);      ///< the callable was not run, or failed
    void (*destroy_result)(void* body);    ///< null: nothing to destroy
    std::type_info const& type;             ///< of the callable, for the task's name
    /// Null: its group is told of its failure. Else the body tells of it, and nobody else; this hands it
    /// the failure of a task that cannot be begun, before it is destroyed.
    void (*fail_body)(void* body, std::exception_ptr) noexcept = nullptr;
};

/// A moment for reports, in units of 2^20 ns (about a millisecond); comes round after 52 days.
using coarse_time = std::uint32_t;
inline coarse_time coarse(time_point when) noexcept {
    return coarse_time(when.time_since_epoch().count() >> 20);
}
inline duration between(coarse_time from, coarse_time to) noexcept { // none if `to` is the earlier
    auto const units = std::int32_t(to - from);
    return duration(units > 0 ? std::int64_t(units) << 20 : 0);
}

/// How far a fiber's stack is: not bound, bound but not yet entered by the fiber, in use.
enum class stack_stage : std::uint8_t { none, bound, entered };

/// The state of a task's outcome, for handles. Written once, under the fiber's lock.
enum class outcome : std::uint8_t { pending, value, failed, cancelled };

/// The control block of a task, from spawn until the last handle is gone.
///
/// Blocks live in slabs that are never unmapped, so a stale reference may always look at `wait`, whose
/// epoch has then moved on. A stack is bound at the first run and handed on at the end.
///
/// Who may touch what: line 0 belongs to the worker that runs the fiber, but for its atomics (anybody) and
/// `cancel_requested`; the scope chain belongs to the fiber, which takes `scopes` to leave a scope and
/// others take to read it; siblings belong to the group's lock; the rest is written before the first
/// run or after the last.
struct alignas(64) fiber {
    static constexpr std::size_t inline_bytes = 48;
    static constexpr std::size_t page = 4096; // of pages_up; where pages are larger, they are fetched twice
    static constexpr std::uint16_t any_worker = 0xffff;
    static constexpr std::uint16_t first_worker = 0xfffe; // the one that begins it

    // line 0: each wake and each switch
    wait_word<> wait;
    void* context = nullptr; // suspended, or with a stack bound: what to jump to
    class runtime* runtime = nullptr;
    void* caught_exceptions = nullptr; // __cxa_eh_globals, carried from worker to worker
    std::atomic<char const*> waiting_on = nullptr;
    int saved_errno = 0;
    std::atomic<coarse_time> waiting_since = 0; // for reports
    std::uint16_t uncaught_exceptions = 0;
    std::int16_t budget = 0;
    std::atomic<std::uint16_t> pinned_to = any_worker;
    std::uint16_t owned_mutexes = 0;  // counted by the fiber itself
    std::atomic<std::uint8_t> attention = 0;
    std::atomic<std::uint8_t> waiting_unwinding = 0; // uncaught exceptions at the current wait
    std::atomic<task_state> state = task_state::finished;
    stack_stage stage : 2 = stack_stage::none;
    bool has_unarmed_scopes : 1 = false; // scopes were entered since it last waited
    std::uint8_t pages_up : 5 = 0; // from `context` to what it needs next; 0: the same page, or unknown
    std::uint16_t suspension_bans = 0; // open no_suspend guards
    std::uint8_t flags : 4 = 0;       // see below; written before the first run
    std::uint8_t stack_class : 4 = 0; //  "
    bool cancel_requested = false;    // a handle's cancel() before its scope existed; under scopes

    // line 1: structure
    struct stack* stack = nullptr;
    std::atomic<cancel_scope*> innermost = nullptr;
    group_state* open_groups = nullptr;   // under scopes
    group_state* group = nullptr;         // whose child it is; under delivery and the group's lock
    cancel_scope* base = nullptr;         // the scope around its outermost own scope
    fiber* previous_sibling = nullptr;    // under the group's lock
    fiber* next_sibling = nullptr;        //  "
    wait_list joiners;                    // under scopes

    // line 2: identity
    spinlock<lock_rank::fiber> scopes;
    std::atomic<outcome> result = outcome::pending;
    std::uint16_t timer_heap = 0; // whose heap
    std::uint32_t index = 0;      // in the slabs; never changes
    std::uint64_t id = 0;
    char const* name = nullptr; // owned if owns_name; else null: derived from the body's type
    void const* spawn_site = nullptr;
    body_operations const* operations = nullptr;
    void* body = nullptr; // in `storage`, or on the heap
    value_store const* context_variables = nullptr;
    std::atomic<std::uint32_t> references = 0; // owners and lookers, see task.cpp
    std::uint32_t timer_slot = 0; // position in a timer heap + 1, or 0; under that heap's lock

    // line 3
    fiber* next = nullptr;            // in a list of pinned or injected ones
    std::uint64_t parent_id = 0;      // 0: none. Under scopes, since start() moves children
    alignas(16) std::byte storage[inline_bytes];

    static constexpr std::uint8_t owns_name = 1;      // name was allocated
    static constexpr std::uint8_t name_is_function = 2; // name is the address of the function that runs
    static constexpr std::uint8_t body_on_heap = 4;
    static constexpr std::uint8_t has_own_scope = 8;  // the body runs in a scope for its handle

    void* place_for_body(std::size_t size, std::size_t alignment); // may throw std::bad_alloc
    bool is_started() const { return stage != stack_stage::none; }
};

static_assert(sizeof(fiber) == 256);

fiber* fiber_at(std::uint32_t index) noexcept;

/// A reference to one wait of one fiber, as wakers keep it. Small enough for one atomic word, and
/// never dangling: fibers are type-stable and a wait that is over has another epoch.
struct wait_ref {
    static constexpr unsigned index_bits = 26;

    std::uint32_t index = 0;
    std::uint64_t epoch = 0;

    std::uint64_t encode() const { return (epoch << index_bits) | index; } // index is never 0 or 1
    static wait_ref decode(std::uint64_t word) {
        return {std::uint32_t(word & ((1u << index_bits) - 1)), word >> index_bits};
    }
};

/// Makes a suspended or new fiber runnable: on this worker if it is one of the same run and the fiber
/// may run here, else by way of the injection queue. Any thread; never waits.
void schedule(fiber&) noexcept;

/// Claims the wait and makes the fiber runnable. False: somebody else was first. Any thread.
bool wake(fiber&, std::uint64_t epoch, wake_reason) noexcept;
bool wake(wait_ref, wake_reason) noexcept;

/// The fiber that calls, or null outside of one. Never keep the address of what it is read from.
fiber* current_fiber() noexcept;
/// The same, else no_event_loop_error naming the call.
fiber& require_fiber(char const* call);

} // namespace weft::detail
