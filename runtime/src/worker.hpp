#pragma once

#include "fiber_slab.hpp"
#include "injection_queue.hpp"
#include "ready_ring.hpp"
#include "spawn_list.hpp"
#include "stack_pool.hpp"
#include "this_thread.hpp"
#include "timer_heap.hpp"

#include <weft/runtime/detail/next_slot.hpp>
#include <weft/runtime/detail/patience.hpp>
#include <weft/runtime/detail/poller.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace weft::detail {

class runtime;

/// What the context that a switch leads to does for the one that was left.
enum class after_switch : std::uint8_t {
    nothing,
    park,       // a fiber waits: now it may be made runnable
    yield,      // a fiber goes to the end of the ready ring
    keep_stack, // a stack whose fiber ended goes to the stock
    scheduler   // the worker's own context waits for work to run out
};

inline std::int64_t ns(time_point when) noexcept { return when.time_since_epoch().count(); }

/// What a worker did, for reports. Written by its owner.
struct worker_counters {
    std::atomic<std::uint64_t> switches = 0;
    std::atomic<std::uint64_t> steals = 0;
    std::atomic<std::uint64_t> sleeps = 0;
    std::atomic<std::uint64_t> polls = 0;
    std::atomic<std::uint64_t> events = 0;
    std::atomic<std::uint64_t> spawned = 0;

    static void count(std::atomic<std::uint64_t>& counter, std::uint64_t more = 1) noexcept {
        auto const before = counter.load(std::memory_order_relaxed);     // one writer
        counter.store(before + more, std::memory_order_relaxed); //  "
    }
};

/// An OS thread that runs fibers: its queues, its timers, its poller. Found through this_worker(),
/// anew after each suspension.
///
/// The scheduler has no loop of its own while there is work: a fiber that parks, yields or ends picks
/// the next one itself and jumps to it. Only when a worker finds nothing in its own queues does it go
/// back to the thread's own stack, where it polls, steals and sleeps.
struct alignas(128) worker {
    worker(runtime&, unsigned index, unsigned workers);
    ~worker();

    /// ns of work that pay for waking another worker: a sleeper comes after 30,000.
    static constexpr std::int64_t worth_waking_for = 250'000;
    /// Turns from one read of the clock to the next, which costs as much as two switches; many where
    /// turns are short.
    static constexpr std::uint32_t few_ticks = 16, many_ticks = 64; // and one where they are long

    // The owner's side, from any of its contexts.
    void run();                              // on the thread's own stack, until the run stops
    void push_ready(fiber&) noexcept;        // to the end of the ring
    void push_woken(fiber* const* runnable, std::size_t count) noexcept; // many, none of them pinned
    void push_woken(fiber&) noexcept;        // next, unless that was so too often
    void push_new(fiber&) noexcept;          // never ran yet
    void leave_current(after_switch) noexcept; // runs others; returns when the fiber is resumed
    [[noreturn]] void run_new_stack(void* from) noexcept;
    /// The fiber of a blocking_region gives its thread, which is no worker, back to the loop that it came
    /// from; returns when a worker resumes the fiber.
    static void leave_thread(fiber&, void* scheduler_context) noexcept;
    void service() noexcept;                 // timers and events, if it is time
    void service_timers() noexcept;
    void note_wait_of_current() noexcept;
    void note_time(time_point now) noexcept {
        coarse_now.store(coarse(now), std::memory_order_relaxed); // a hint for reports
    }
    fiber* make_fiber() noexcept { return fibers.take(); }
    unsigned poll_now(worker& of) noexcept;  // the poller of a worker that is busy, or the own one
    bool neglects_poller(std::int64_t now) const noexcept; // a fiber has kept it busy for some time

    // Anybody's side.
    fiber* steal_for(worker& thief, bool desperate) noexcept;
    bool has_work() const noexcept;
    bool has_work_for_all() const noexcept; // that others may take at once
    void push_pinned(fiber&) noexcept;

    runtime& run_of;
    unsigned const index;
    bool const alone;     // no other worker can steal
    bool const simulated; // a "sim" run
    std::atomic<fiber*> current = nullptr;         // by the owner's thread, also for its signal handlers; the monitor
    exception_globals* exceptions = nullptr;       // of the owner's thread
    int* errno_address = nullptr;                  //  "
    std::atomic<int> thread = 0;                   // the owner's, for the stall detector
    std::uint32_t pinned_tasks = 0;                // that have begun here: the thread must stay
    void* scheduler_context = nullptr;
    std::unique_ptr<poller> poll;

    // what switch_to leaves for the other side
    after_switch after = after_switch::nothing;
    fiber* left_fiber = nullptr;
    stack* left_stack = nullptr;
    fiber* starting = nullptr;                     // for run_new_stack

    std::atomic<std::uint32_t> tick = 0;           // one writer; others see whether it moves
    std::atomic<coarse_time> coarse_now = 0;       // as of the last look at the clock, or the monitor's
    std::uint32_t next_look = few_ticks;           // tick of the next look at the clock or for late comers
    std::uint32_t slot_streak = 0;                 // times in a row that the next-slot was used
    bool prefer_new = false;                       // ready and new fibers take turns
    bool pinned_turn = false;                      // and so do pinned fibers and all others
    bool searching = false;                        // counted in the idle word
    bool dispatching = false;                      // events are being turned into ready fibers
    bool woken_by_injection = false;               // the last sleep ended by work from outside
    std::uint64_t next_id = 0;
    std::uint64_t random = 0;
    std::int64_t last_poll = 0;                    // ns
    std::int64_t turn_time = worth_waking_for;     // ns, of a fiber until it switches, of late
    std::uint32_t ticks_between_clock_reads = few_ticks; // a power of two
    std::int64_t turns_since = 0;                  // ns, begin of what is measured next
    std::uint32_t turns_since_tick = 0;            //  "
    std::int64_t spin_time;                        // ns
    yielding_look after_others;                    // instead, on a single CPU

    ready_ring ready;
    injection_queue overflow{injection_queue::producers::one}; // ready ones that the ring has no room for
    alignas(64) next_slot<fiber*> slot;
    spawn_list spawned; // of tasks that nobody has begun
    alignas(64) spinlock<lock_rank::run_queue> pinned_lock;
    fiber* pinned_first = nullptr;
    fiber* pinned_last = nullptr;
    std::atomic<std::uint32_t> pinned_count = 0;
    std::mutex poll_lock;                          // collect() and dispatch()
    std::atomic<std::int64_t> served_at = 0;       // last service, for others
    std::atomic<bool> saturated = false;           // busy for long without a sleep; by the monitor
    std::atomic<bool> has_stand_in = false;        // somebody looks into its poller meanwhile
    timer_heap timers;
    fiber_cache fibers;
    stack_cache stacks;
    worker_counters counters;
    std::int64_t last_release = 0;                 // ns: of idle stacks, if nobody else sees to that
    std::uint64_t switches_at_release = 0;         // of all idle stacks, while there was nothing to do

private:
    fiber* next_fiber() noexcept;                  // from the own queues
    fiber* search_queues(std::uint32_t now) noexcept;
    bool is_slots_turn() noexcept;
    fiber* look_beyond_ready(std::uint32_t now) noexcept;
    void push_woken_behind(fiber&) noexcept;
    fiber* take_pinned() noexcept;
    fiber* take_from(injection_queue&, std::size_t most) noexcept;
    void refill_ring() noexcept;
    fiber* take_injected() noexcept;
    fiber* take_late_comer(bool new_first) noexcept;
    fiber* find_elsewhere() noexcept;
    fiber* steal() noexcept;
    fiber* take_spawns_of(worker& victim) noexcept;
    bool spin() noexcept;
    void sleep() noexcept;
    unsigned await_events(duration at_most, bool quiet_is_awaited) noexcept;
    bool has_stacks_to_release() const noexcept;
    void release_stacks(bool all) noexcept;
    bool tell_if_quiet() noexcept;
    void note_awake() noexcept;
    void sim_idle() noexcept;                      // sim_idle.cpp
    bool sim_sleep(duration at_most, time_point timer) noexcept; //  "
    void dispatch(worker& of, unsigned events) noexcept;
    bool poll_neglected(std::int64_t now) noexcept;
    worker* stand_in() noexcept;
    void begin_turns(std::int64_t now) noexcept;   // after a sleep
    void measure_turns(std::int64_t now) noexcept; // before one, and now and then
    bool anything_to_run() const noexcept;
    bool others_have_work() const noexcept;
    bool has_more_than_ready() const noexcept;
    bool look_everywhere() noexcept;

    worker& switch_to(fiber*) noexcept;            // null: the thread's own stack
    void* switch_context_to(fiber*) noexcept;
    bool run_fibers(fiber& first) noexcept;
    void finish_switch(void* from) noexcept;
    void finish_other_switch(void* from) noexcept;
    void become(fiber&) noexcept;
    bool bind_stack(fiber&) noexcept;
    void give_up(fiber& unstarted) noexcept;
    fiber* bind_or_next(fiber* found) noexcept;
    fiber* with_stack(fiber* found) noexcept {
        return found != nullptr && found->is_started() ? found : bind_or_next(found);
    }
    fiber* next_with_stack() noexcept { return with_stack(next_fiber()); }
};

} // namespace weft::detail
