#include "worker.hpp"

#include "abort.hpp"
#include "context_switch.hpp"
#include "error_pointer.hpp"
#include "runtime.hpp"
#include "task.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

namespace weft::detail {

namespace {

constexpr std::uint32_t ticks_between_injection_looks = 61;
constexpr std::uint32_t most_slot_uses_in_a_row = 3;     // else a pair of fibers starves the rest
constexpr std::int64_t time_before_slot_is_stolen = 3'000; // ns
constexpr std::int64_t time_before_few_are_stolen = 2'000; //  "
constexpr std::int64_t longest_spin = 20'000;            // ns: waking a sleeping core costs 30,000
constexpr std::int64_t shortest_spin = 1'000;            // ns: enough to see that it pays again
constexpr std::size_t injected_at_once = ready_ring::capacity / 2;
constexpr std::size_t injected_at_least = 8; // however much is ready
constexpr std::uint32_t spawns_stolen_at_once = 32;
constexpr std::int16_t budget_of_a_turn = 128;

void pause_for(std::int64_t time) noexcept {
    std::int64_t const until = ns(runtime::real_now()) + time;
    while (ns(runtime::real_now()) < until)
        pause_cpu();
}

/// What another worker has woken and will run next: the first that is seen, another one's in each search.
class woken_fibers {
public:
    explicit woken_fibers(worker const& observer) : observer_(observer) {}

    /// Since the look before this one its waker went on.
    bool one_is_left_waiting() noexcept {
        worker const* waker = nullptr;
        auto const count = unsigned(observer_.run_of.workers.size());
        for (unsigned step = 0; waker == nullptr && step < count; ++step) {
            worker const& other = *observer_.run_of.workers[(observer_.random + step) % count];
            if (&other != &observer_ && other.slot.looks_full()) waker = &other;
        }
        std::uint32_t const turn = waker != nullptr ? waker->tick.load(std::memory_order_relaxed) : 0; // a hint
        bool const same = waker != nullptr && waker == waker_ && turn == turn_;
        waker_ = waker;
        turn_ = turn;
        seen_ = seen_ || waker != nullptr;
        return same;
    }
    bool were_seen() const noexcept { return seen_; }

private:
    worker const& observer_;
    worker const* waker_ = nullptr; // as of the look before
    std::uint32_t turn_ = 0;        //  "
    bool seen_ = false;
};

} // namespace

worker::worker(runtime& run, unsigned number, unsigned workers)
    : run_of(run), index(number), alone(workers == 1), simulated(run.sim != nullptr), poll(make_epoll_poller()),
      next_id((std::uint64_t(number) + 1) << 40), random(0x9e3779b97f4a7c15u * (number + 1)),
      spin_time(longest_spin), slot(alone), spawned(alone), timers(std::uint16_t(number)) {}

worker::~worker() {
    fibers.give_all();
    stacks.give_all();
}

// ---- switching -----------------------------------------------------------------------------------

inline void worker::become(fiber& resumed) noexcept {
    exception_globals& globals = *exceptions;
    globals.caught = resumed.caught_exceptions;
    globals.uncaught = resumed.uncaught_exceptions;
    resumed.budget = simulated ? run_of.sim->draw_budget() : budget_of_a_turn;
    resumed.state.store(task_state::running, std::memory_order_release); // pairs with reports
    worker_counters::count(counters.switches);
}

inline void* worker::switch_context_to(fiber* next) noexcept {
    void* const context = next != nullptr ? next->context : scheduler_context;
    // The one that is left may soon run, and end, elsewhere: signal handlers look here.
    current.store(next, std::memory_order_relaxed); // ours
    if (next == nullptr) {
        *exceptions = {};
    } else if (next->stage == stack_stage::bound) {
        starting = next; // its stack waits in run_new_stack()
    }
    return switch_context(context, next != nullptr ? next->stack : nullptr);
}

// The worker that continues may be another one than that which left: nothing of `this` after the call.
// Gives the one that continues.
inline worker& worker::switch_to(fiber* next) noexcept {
    void* const from = switch_context_to(next);
    worker& here = *this_worker();
    here.finish_switch(from);
    return here;
}

// From the loop, on the thread's own stack, until there is nothing to run. False: a blocking_region has
// given this worker to another thread, and the fiber is done with this one (B5).
bool worker::run_fibers(fiber& first) noexcept {
    after = after_switch::scheduler;
    void* const from = switch_context_to(&first);
    if (worker* const here = this_worker(); here != nullptr) [[likely]] {
        here->finish_switch(from);
        return true;
    }
    fiber& left = *this_thread_arrival();
    left.context = from;
    left.runtime->schedule(left);
    return false;
}

void worker::leave_thread(fiber& self, void* scheduler_context) noexcept {
    exception_globals* const globals = this_thread_exception_globals();
    self.caught_exceptions = globals->caught;
    self.uncaught_exceptions = std::uint16_t(globals->uncaught);
    self.saved_errno = *this_thread_errno();
    *globals = {};
    set_this_thread_arrival(&self);
    void* const from = switch_context(scheduler_context, nullptr);
    worker& here = *this_worker();
    here.finish_switch(from);
    here.become(self);
    *here.errno_address = self.saved_errno;
}

// The most frequent one where the switch is, without a call.
inline void worker::finish_switch(void* from) noexcept {
    if (after != after_switch::park) [[unlikely]]
        return finish_other_switch(from);
    fiber& left = *left_fiber;
    after = after_switch::nothing;
    left.context = from;
    if (left.wait.park()) run_of.schedule(left); // A5, A6
}

void worker::finish_other_switch(void* from) noexcept {
    switch (std::exchange(after, after_switch::nothing)) {
    case after_switch::nothing:
    case after_switch::park:
        break;
    case after_switch::yield:
        left_fiber->context = from;
        if (left_fiber->pinned_to.load(std::memory_order_relaxed) == fiber::any_worker) // its own
            push_ready(*left_fiber);
        else
            push_pinned(*left_fiber);
        break;
    case after_switch::keep_stack:
        left_stack->context = from;
        stacks.give(*left_stack);
        break;
    case after_switch::scheduler:
        scheduler_context = from;
        break;
    }
}

void worker::leave_current(after_switch how) noexcept {
    fiber& self = *current.load(std::memory_order_relaxed); // our own
    fiber* const next = next_with_stack();
    if (next == nullptr && how == after_switch::yield) {
        self.state.store(task_state::running, std::memory_order_release); // pairs with reports
        self.budget = budget_of_a_turn;
        return;
    }
    exception_globals const& globals = *exceptions;
    self.caught_exceptions = globals.caught;
    self.uncaught_exceptions = std::uint16_t(globals.uncaught);
    self.saved_errno = *errno_address;
    after = how;
    left_fiber = &self;
    worker& here = switch_to(next);
    here.become(self);
    *here.errno_address = self.saved_errno;
}

// A stack's life: one task after the other. A new task that is next runs on this very stack, without
// a switch; else the stack goes to the stock and waits here for the next one.
void worker::run_new_stack(void* from) noexcept {
    finish_switch(from);
    for (;;) {
        worker* here = this_worker();
        fiber* task = std::exchange(here->starting, nullptr);
        stack* const own = task->stack;
        task->stage = stack_stage::entered;
        ended_batch ended;
        for (;;) {
            if (task->pinned_to.load(std::memory_order_relaxed) == fiber::first_worker) // nobody else's
                task->pinned_to.store(std::uint16_t(here->index), std::memory_order_relaxed); //  "
            bool const pinned =
                task->pinned_to.load(std::memory_order_relaxed) != fiber::any_worker; //  "
            here->pinned_tasks += pinned;
            here->current.store(task, std::memory_order_relaxed); // ours
            here->become(*task);
            group_state* const group = run_task(*task);
            here = this_worker();
            here->pinned_tasks -= pinned;
            here->current.store(nullptr, std::memory_order_relaxed); // ours
            if (group != nullptr) ended.add(*group, *task);
            task = here->next_fiber();
            bool const fits_here =
                task != nullptr && !task->is_started() && task->stack_class == own->size_class;
            if (!fits_here || ended.must_flush_before(*task)) ended.flush();
            if (!fits_here) break;
            task->stack = own;
            task->stage = stack_stage::entered;
        }
        task = here->with_stack(task);
        here->after = after_switch::keep_stack;
        here->left_stack = own;
        here->switch_to(task);
    }
}

void run_on_new_stack(void* from) noexcept {
    this_worker()->run_new_stack(from);
}

bool worker::bind_stack(fiber& unstarted) noexcept {
    stack* const bound = stacks.take(unstarted.stack_class);
    if (bound == nullptr) return false;
    if (bound->context == nullptr) bound->context = make_context(*bound);
    unstarted.stack = bound;
    unstarted.stage = stack_stage::bound;
    unstarted.context = bound->context;
    return true;
}

void worker::give_up(fiber& unstarted) noexcept {
    // Destructors of the body run here, on whatever stack this is: not as the fiber that it belongs to.
    fiber* const here = current.load(std::memory_order_relaxed); // our own
    current.store(nullptr, std::memory_order_relaxed);            // our own
    fail_unstarted(unstarted, error_or_bad_alloc([&] {
                       return std::system_error(
                           ENOMEM, std::system_category(),
                           "no stack of " +
                               std::to_string(stack_classes::bytes_of(unstarted.stack_class)) +
                               " bytes for task '" + task_name(unstarted) + "'" + stack_depot::shortage());
                   }));
    current.store(here, std::memory_order_relaxed); // our own
}

// ---- own queues ----------------------------------------------------------------------------------

// For those that wake one another without the call and the frame of the whole search, which goes first
// through the same steps.
inline fiber* worker::next_fiber() noexcept {
    std::uint32_t const now = tick.load(std::memory_order_relaxed) + 1; // one writer
    tick.store(now, std::memory_order_relaxed);                          //  "
    if (!slot.is_empty() && now != next_look &&
        pinned_count.load(std::memory_order_relaxed) == 0 && is_slots_turn()) // exact for our own pushes
        if (fiber* const woken = slot.exchange(nullptr)) return woken;
    return search_queues(now);
}

inline bool worker::is_slots_turn() noexcept {
    return ++slot_streak <= most_slot_uses_in_a_row ||
           (ready.empty() && spawned.empty() && overflow.empty());
}

fiber* worker::search_queues(std::uint32_t now) noexcept {
    if (simulated) {
        fiber* const left = current.load(std::memory_order_relaxed); // our own
        if (left != nullptr && run_of.sim->on_suspension) run_of.sim->on_suspension(*left);
        if (now % ticks_between_injection_looks == 0) {
            service();
            if (fiber* const injected = take_injected()) run_of.sim->push(*injected);
        }
        return run_of.sim->pop();
    }
    if (now == next_look)
        if (fiber* const late = look_beyond_ready(now)) return late;
    // Turns: pinned fibers that yield all the time must not keep the others away.
    bool const pinned_wait = pinned_count.load(std::memory_order_relaxed) != 0; // exact for our own pushes
    if (pinned_wait) pinned_turn = !pinned_turn;
    if (pinned_wait && pinned_turn)
        if (fiber* const pinned = take_pinned()) return pinned;
    if (!slot.is_empty() && is_slots_turn())
        if (fiber* const woken = slot.exchange(nullptr)) return woken;
    slot_streak = 0;
    if (std::exchange(prefer_new, false))
        if (fiber* const newest = spawned.pop_newest()) return newest;
    if (!overflow.empty() && ready.size() < ready_ring::enough) refill_ring();
    if (fiber* const first = ready.pop(alone)) {
        prefer_new = true;
        return first;
    }
    if (fiber* const newest = spawned.pop_newest()) return newest;
    if (fiber* const woken = slot.exchange(nullptr)) return woken;
    if (pinned_wait)
        if (fiber* const pinned = take_pinned()) return pinned;
    return run_of.injection.empty() ? nullptr : take_injected();
}

// Now and then, however much is ready: at the clock, and for those who come last.
fiber* worker::look_beyond_ready(std::uint32_t now) noexcept {
    if (now % ticks_between_clock_reads == 0) service();
    bool const late_comers_turn = now % ticks_between_injection_looks == 0;
    next_look = std::min(now - now % ticks_between_clock_reads + ticks_between_clock_reads,
                         now - now % ticks_between_injection_looks + ticks_between_injection_looks);
    return late_comers_turn ? take_late_comer(now / ticks_between_injection_looks % 2 == 0) : nullptr;
}

// First in, first out over both: while some wait in the overflow, new ones go behind them.
void worker::push_ready(fiber& runnable) noexcept {
    if (simulated) return run_of.sim->push(runnable);
    if (overflow.empty() && ready.push(runnable)) return;
    overflow.push_own(runnable);
}

void worker::push_woken(fiber& runnable) noexcept {
    if (simulated || !slot.fill(&runnable)) [[unlikely]]
        push_woken_behind(runnable);
}

[[gnu::noinline]] void worker::push_woken_behind(fiber& runnable) noexcept {
    if (simulated) return run_of.sim->push(runnable);
    fiber* const displaced = slot.exchange(&runnable);
    if (displaced == nullptr) return; // run next by us: nobody need be woken for it
    push_ready(*displaced);
    if (run_of.workers.size() > 1) run_of.notify();
}

void worker::push_woken(fiber* const* runnable, std::size_t count) noexcept {
    std::size_t pushed = 0;
    if (overflow.empty())
        while (pushed < count && ready.push(*runnable[pushed]))
            ++pushed;
    if (pushed < count) overflow.push_own(runnable + pushed, count - pushed);
    if (run_of.workers.size() > 1) run_of.notify();
}

void worker::push_new(fiber& unstarted) noexcept {
    worker_counters::count(counters.spawned);
    if (simulated) return run_of.sim->push(unstarted);
    if (!spawned.push(unstarted)) push_ready(unstarted); // no memory
    if (run_of.workers.size() > 1) run_of.notify();
}

void worker::push_pinned(fiber& runnable) noexcept {
    if (simulated) return run_of.sim->push(runnable);
    pinned_lock.lock();
    runnable.next = nullptr;
    (pinned_last != nullptr ? pinned_last->next : pinned_first) = &runnable;
    pinned_last = &runnable;
    pinned_count.fetch_add(1, std::memory_order_seq_cst); // pairs with has_work() before a sleep
    pinned_lock.unlock();
}

fiber* worker::take_pinned() noexcept {
    pinned_lock.lock();
    fiber* const first = pinned_first;
    if (first != nullptr) {
        pinned_first = first->next;
        if (pinned_first == nullptr) pinned_last = nullptr;
        pinned_count.fetch_sub(1, std::memory_order_relaxed); // under the lock
    }
    pinned_lock.unlock();
    return first;
}

// The first of a batch; the others go where what gets ready goes.
fiber* worker::take_from(injection_queue& queue, std::size_t most) noexcept {
    std::array<fiber*, injected_at_once> batch;
    std::size_t const count = queue.take(batch.data(), most);
    for (std::size_t step = 1; step < count; ++step)
        push_ready(*batch[step]);
    if (count > 1 && run_of.workers.size() > 1) run_of.notify();
    return count != 0 ? batch[0] : nullptr;
}

// While the ring still has some: what it fetches ahead must not end with each batch.
void worker::refill_ring() noexcept {
    std::array<fiber*, injected_at_once> batch;
    std::size_t const count = overflow.take(batch.data(), injected_at_once);
    for (std::size_t step = 0; step < count; ++step)
        if (!ready.push(*batch[step])) push_ready(*batch[step]); // a thief that was stopped holds its slots
    if (count != 0 && run_of.workers.size() > 1) run_of.notify();
}

// What has room in half of the ring: the rest would go through the overflow as well.
fiber* worker::take_injected() noexcept {
    std::size_t const used = std::min<std::size_t>(ready.size(), injected_at_once); // exact for us, but thieves
    return take_from(run_of.injection, std::max(injected_at_once - used, injected_at_least));
}

// What comes last in each turn, and must have one at times: the two of them by turns.
fiber* worker::take_late_comer(bool new_first) noexcept {
    if (new_first)
        if (fiber* const oldest = spawned.pop_oldest()) return oldest;
    if (fiber* const injected = take_injected()) return injected;
    return new_first ? nullptr : spawned.pop_oldest();
}

bool worker::has_work() const noexcept {
    return has_work_for_all() || slot.looks_full() ||
           pinned_count.load(std::memory_order_seq_cst) != 0; // push_pinned()
}

bool worker::has_work_for_all() const noexcept {
    return !ready.empty() || !spawned.empty() || !overflow.empty();
}

// ---- work from elsewhere -------------------------------------------------------------------------

void worker::run() {
    while (!run_of.stopping.load(std::memory_order_acquire)) { // pairs with stop()
        fiber* next = next_with_stack();
        if (next == nullptr) {
            if (run_of.sim)
                sim_idle();
            else if (fiber* const found = find_elsewhere())
                next = with_stack(found);
            if (next == nullptr) continue;
        }
        if (searching) {
            searching = false;
            // The last searcher: work that was pushed while it searched relied on it (idle_word I3).
            if (run_of.idle.stop_searching() && anything_to_run()) run_of.notify();
        }
        if (!run_fibers(*next)) return;
    }
    if (std::exchange(searching, false)) run_of.idle.stop_searching();
}

fiber* worker::bind_or_next(fiber* found) noexcept {
    while (found != nullptr && !found->is_started() && !bind_stack(*found)) {
        give_up(*found);
        found = next_fiber();
    }
    return found;
}

fiber* worker::find_elsewhere() noexcept {
    service_timers();
    if (run_of.workers.size() > 1) { // alone, the sleep itself is the look at the events
        std::int64_t const now = ns(runtime::real_now());
        measure_turns(now);
        if (poll->is_used() && poll_now(*this) != 0) return nullptr;
        if (poll_neglected(now)) return nullptr;
        if (has_work() || !run_of.injection.empty()) return nullptr; // the own queues again
        if (!searching) searching = run_of.idle.try_start_searching(unsigned(run_of.workers.size()));
        if (searching)
            if (fiber* const stolen = steal()) return stolen;
    }
    if (spin()) return nullptr;
    sleep();
    return nullptr;
}

fiber* worker::steal() noexcept {
    auto const count = unsigned(run_of.workers.size());
    for (int pass = 0; pass < 2; ++pass) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17; // xorshift
        auto const start = unsigned(random % count);
        for (unsigned step = 0; step < count; ++step) {
            worker& victim = *run_of.workers[(start + step) % count];
            if (&victim == this) continue;
            if (fiber* const stolen = victim.steal_for(*this, pass == 1)) {
                worker_counters::count(counters.steals);
                return stolen;
            }
        }
    }
    return nullptr;
}

// What was just woken is last to be taken: its waker is about to run it, with everything still warm. A few
// new tasks are left alone, too, until the spawner had time for more of them: moving a control block from
// core to core costs more than a small task (weft-bench --workers 2 spawn_join_b1000).
fiber* worker::steal_for(worker& thief, bool desperate) noexcept {
    if (fiber* const stolen = ready.steal_into(thief.ready)) return stolen;
    if (fiber* const stolen = thief.take_from(overflow, injected_at_once)) return stolen;
    if (spawned.size() >= spawns_stolen_at_once)
        if (fiber* const stolen = thief.take_spawns_of(*this)) return stolen;
    if (!desperate) return nullptr;
    if (!spawned.empty()) {
        pause_for(time_before_few_are_stolen);
        if (fiber* const stolen = thief.take_spawns_of(*this)) return stolen;
    }
    if (slot.is_empty()) return nullptr;
    // Give the owner the time of a cache miss or two; a pair that plays ping-pong is left alone.
    std::uint32_t const before = tick.load(std::memory_order_relaxed); // a hint
    pause_for(time_before_slot_is_stolen);
    if (tick.load(std::memory_order_relaxed) != before) return nullptr; // a hint
    return slot.steal();
}

// The newest of the oldest; the others go to the own list, in their order.
fiber* worker::take_spawns_of(worker& victim) noexcept {
    std::array<fiber*, spawns_stolen_at_once> batch;
    std::uint32_t const count = victim.spawned.take_oldest(batch.data(), spawns_stolen_at_once);
    if (count == 0) return nullptr;
    for (std::uint32_t step = 0; step + 1 < count; ++step)
        if (!spawned.push(*batch[step])) push_ready(*batch[step]); // no memory
    return batch[count - 1];
}

// What this worker could run.
bool worker::anything_to_run() const noexcept {
    return !run_of.injection.empty() || has_work() || others_have_work();
}

bool worker::others_have_work() const noexcept {
    for (auto const& other : run_of.workers)
        if (other.get() != this && other->has_work_for_all()) return true;
    return false;
}

// Beside what is in the own ring.
bool worker::has_more_than_ready() const noexcept {
    return !run_of.injection.empty() || !spawned.empty() || !overflow.empty() || others_have_work();
}

// Worth it only where work may come without a system call of ours: from other workers, or from threads
// that were quick to follow up before. For longer after it paid. True: something came. Fibers that others have
// woken are not something: those who play ping-pong would keep us looking for ever, and each look costs them a
// miss. It is if the waker goes on and on.
bool worker::spin() noexcept {
    auto const found = [this] {
        return anything_to_run() || run_of.stopping.load(std::memory_order_relaxed); // a hint
    };
    if (run_of.single_cpu)
        return woken_by_injection && after_others.look_for([&] {
            return found() ? std::max<std::int64_t>(1, run_of.injection.size()) : 0;
        });
    if (alone ? !woken_by_injection : !searching) return false;
    std::int64_t const until = ns(runtime::real_now()) + spin_time;
    woken_fibers others(*this);
    do {
        for (int look = 0; look < 32; ++look) {
            if (found() || (look % 8 == 0 && others.one_is_left_waiting())) {
                spin_time = std::min(2 * spin_time, longest_spin);
                return true;
            }
            pause_cpu();
        }
    } while (ns(runtime::real_now()) < until);
    if (!others.were_seen()) spin_time = std::max(spin_time / 2, shortest_spin); // one might have been left
    return false;
}

} // namespace weft::detail
