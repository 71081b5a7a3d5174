#include "worker.hpp"

#include "runtime.hpp"

#include <algorithm>

// What a worker has to do with time and with its poller: timers, events, and the sleep in which it waits for
// either.

namespace weft::detail {

namespace {

constexpr std::int64_t poll_interval = 100'000;          // ns, while busy
constexpr std::int64_t longest_without_poll = 1'000'000; // ns, while much is ready
constexpr std::uint32_t much_ready = 64;                 // what comes now would run after all of it
constexpr std::int64_t neglected_after = 1'000'000;      // ns without a look at its events
constexpr std::int64_t shortest_turn = 100;              // ns
constexpr std::int64_t short_turn = 500;                 // ns: 64 of them are less than poll_interval
constexpr std::int64_t long_turn = 100'000;              // ns: as long as poll_interval
constexpr std::int64_t release_interval = 1'000'000'000; // ns: stacks not needed for so long
constexpr duration quiet_before_release(100'000'000);    // ns: then all that are kept ready go
constexpr std::size_t few_stacks = 64;                   // take 50 us to release

} // namespace

// ---- timers and events ---------------------------------------------------------------------------

void worker::service_timers() noexcept {
    if (timers.earliest() == time_point::max()) return;
    timers.expire(run_of.now());
}

// The fiber that is about to leave has noted the last look at the clock: where turns are long, that of before its turn.
void worker::note_wait_of_current() noexcept {
    fiber* const left = current.load(std::memory_order_relaxed); // our own
    if (left != nullptr && left->state.load(std::memory_order_relaxed) == task_state::waiting) // our own
        left->waiting_since.store(coarse_now.load(std::memory_order_relaxed), std::memory_order_relaxed); // for reports
}

void worker::service() noexcept {
    time_point const now = runtime::real_now();
    served_at.store(ns(now), std::memory_order_relaxed); // the monitor's hint
    measure_turns(ns(now));
    if (!run_of.sim) {
        note_time(now);
        note_wait_of_current();
        timers.expire(now);
        if (ns(now) - last_release >= release_interval) {
            last_release = ns(now);
            release_stacks(false);
        }
    }
    // Events collected early only wait in the ring, until it overflows: 10,000 busy connections.
    std::int64_t const interval = ready.size() < much_ready ? poll_interval : longest_without_poll;
    if (ns(now) - last_poll > interval) {
        last_poll = ns(now);
        if (poll->is_used()) poll_now(*this);
        poll_neglected(last_poll);
    }
}

// Events of `of`, whose owner is this worker or is busy. Gives how many there were.
unsigned worker::poll_now(worker& of) noexcept {
    if (!of.poll_lock.try_lock()) return 0;
    unsigned const events = of.poll->collect(duration::zero(), &of == this ? poller::caller::owner
                                                                             : poller::caller::visitor);
    if (events != 0) dispatch(of, events);
    of.poll_lock.unlock();
    worker_counters::count(counters.polls);
    return events;
}

void worker::begin_turns(std::int64_t now) noexcept {
    turns_since = now;
    turns_since_tick = tick.load(std::memory_order_relaxed); // our own
}

// A turn during which the kernel ran somebody else must not count for much, so the value follows slowly.
void worker::measure_turns(std::int64_t now) noexcept {
    std::uint32_t const turns = tick.load(std::memory_order_relaxed) - turns_since_tick; // our own
    if (turns == 0) return;
    std::int64_t const each = std::max((now - turns_since) / turns, shortest_turn);
    turn_time = std::clamp(each, turn_time / 2, 2 * turn_time);
    ticks_between_clock_reads = turn_time < short_turn ? many_ticks : turn_time < long_turn ? few_ticks : 1;
    begin_turns(now);
}

// What the events wake goes to the own ring; another worker is woken only if that is so much work that it
// comes in time to help. To wake one for two or three short turns costs more than they do: they lose their
// caches, and both workers sleep more often (weft-echo on two workers, 100 connections: a third more CPU).
// If a turn takes longer than those before, the monitor sees what waits behind it.
void worker::dispatch(worker& of, unsigned events) noexcept {
    dispatching = true;
    of.poll->dispatch();
    dispatching = false;
    worker_counters::count(counters.events, events);
    if (alone || ready.empty()) return;
    bool const helper_is_due =
        ready.size() > 1 && std::int64_t(ready.size()) * turn_time > worth_waking_for;
    if (!searching) {
        if (helper_is_due) run_of.notify();
        return;
    }
    // Nothing else to be searched for. The last searcher: work that others pushed relied on it (idle_word I3).
    searching = false;
    if (run_of.idle.stop_searching() && (helper_is_due || has_more_than_ready())) run_of.notify();
}

bool worker::neglects_poller(std::int64_t now) const noexcept {
    return poll->is_used() && now - served_at.load(std::memory_order_relaxed) > neglected_after && // a hint
           !run_of.idle.is_asleep(index);
}

// For fibers whose events wait for a worker that is kept busy. True: there were some.
bool worker::poll_neglected(std::int64_t now) noexcept {
    auto const count = unsigned(run_of.workers.size());
    for (unsigned step = 1; step < count; ++step) { // not the same first for everybody
        worker& other = *run_of.workers[(index + step) % count];
        if (!other.neglects_poller(now) || poll_now(other) == 0) continue;
        run_of.notify(); // who stands in next, while we are busy with these
        return true;
    }
    return false;
}

// A worker whose poller this one looks into again soon, instead of sleeping for long; nobody else does.
worker* worker::stand_in() noexcept {
    if (alone) return nullptr;
    std::int64_t const now = ns(runtime::real_now());
    for (auto const& other : run_of.workers)
        if (other.get() != this && other->neglects_poller(now) &&
            !other->has_stand_in.exchange(true, std::memory_order_relaxed)) // only chooses one
            return other.get();
    return nullptr;
}

// ---- sleep ---------------------------------------------------------------------------------------

void worker::sleep() noexcept {
    run_of.idle.announce_sleep(index, std::exchange(searching, false)); // W1, W2
    if (anything_to_run() || run_of.stopping.load(std::memory_order_seq_cst)) { // W3
        run_of.idle.retract(index);                                                // W4
        note_awake();
        return;
    }
    bool const quiet_is_awaited =
        run_of.quiescence_waiters.load(std::memory_order_seq_cst) != 0; // pairs with the waiter
    if (quiet_is_awaited && tell_if_quiet()) return;
    poll_lock.lock();
    duration at_most = duration::max();
    if (time_point const timer = timers.earliest(); timer != time_point::max())
        at_most = std::max(duration::zero(), timer - run_of.now());
    worker* const looked_after = stand_in();
    if (looked_after != nullptr) at_most = std::min(at_most, duration(neglected_after));
    worker_counters::count(counters.sleeps);
    bool const tidies = at_most > quiet_before_release && has_stacks_to_release();
    time_point const since = tidies ? runtime::real_now() : time_point();
    unsigned const events = await_events(tidies ? quiet_before_release : at_most, quiet_is_awaited); // W5
    if (tidies && events == 0 && !anything_to_run() && runtime::real_now() - since >= quiet_before_release)
        release_stacks(true);
    if (looked_after != nullptr) looked_after->has_stand_in.store(false, std::memory_order_relaxed); // as above
    woken_by_injection = !run_of.injection.empty();
    if (events != 0) dispatch(*this, events);
    poll_lock.unlock();
    time_point const woken = runtime::real_now();
    last_poll = ns(woken);
    begin_turns(last_poll);
    served_at.store(last_poll, std::memory_order_relaxed); // the monitor's hint
    note_time(woken);
    service_timers();
}

// I4: whoever woke us, we count as searching afterwards. While somebody waits for quiet, events must not be
// on their way from the kernel to us while we pass for asleep: they stay with the kernel until then.
unsigned worker::await_events(duration at_most, bool quiet_is_awaited) noexcept {
    unsigned events = 0;
    if (quiet_is_awaited)
        poll->await(at_most);
    else
        events = poll->collect(at_most, poller::caller::owner);
    run_of.idle.retract(index);
    if (quiet_is_awaited) {
        run_of.awakenings.fetch_add(1, std::memory_order_seq_cst); // pairs with tell_if_quiet()
        events = poll->collect(duration::zero(), poller::caller::owner);
    }
    note_awake();
    return events;
}

// The one that is last to fall asleep looks whether there is anything to come. False: it is not the last.
bool worker::tell_if_quiet() noexcept {
    auto const count = unsigned(run_of.workers.size());
    auto const before = run_of.awakenings.load(std::memory_order_seq_cst); // pairs with await_events()
    if (!run_of.idle.retract_as_last(index, count)) return false;
    note_awake();
    // What was there when all slept is still there to be seen, unless somebody woke up for it.
    if (!look_everywhere() && run_of.awakenings.load(std::memory_order_seq_cst) == before) // await_events()
        run_of.wake_quiescence_waiters();
    return true;
}

// After the idle word says so: the monitor may have dozed off because all slept.
void worker::note_awake() noexcept {
    searching = true;
    if (run_of.monitor_dozes.load(std::memory_order_seq_cst)) run_of.watcher->rouse(); // monitor
}

// Once for all that was left since something ran: sleep() must not end again and again for what cannot be given
// back.
bool worker::has_stacks_to_release() const noexcept {
    return !run_of.is_watched.load(std::memory_order_relaxed) && stack_depot::idle_stacks() != 0 && // hints
           counters.switches.load(std::memory_order_relaxed) != switches_at_release;                // our own
}

// What the monitor does, if there is one. Of many the only worker would be kept busy for long.
void worker::release_stacks(bool all) noexcept {
    if (run_of.is_watched.load(std::memory_order_relaxed)) return; // a hint
    if (all) switches_at_release = counters.switches.load(std::memory_order_relaxed); // our own
    if (stack_depot::idle_stacks() > few_stacks) return run_of.watch();
    stack_depot::release_idle_memory(all);
}

// The only worker awake, before it calls the run quiet: events and timers of all. True: there were any.
bool worker::look_everywhere() noexcept {
    bool any = false;
    for (auto const& other : run_of.workers) {
        any = other->timers.expire(run_of.now()) != 0 || any;
        if (other.get() == this) {
            { std::lock_guard const guard(poll_lock); } // the monitor may have collected, not dispatched
            any = poll_now(*other) != 0 || any;
        } else if (other->poll->is_used()) {
            // Asleep in its poller: what there is for it will wake it. Let it.
            any = other->poll->has_events() || any;
        }
    }
    // In this order: who is at work for the run from outside, like the monitor with a timer that it has
    // taken out, makes it visible in a queue before it leaves (TI6).
    any = run_of.has_visitors() || any;
    for (auto const& other : run_of.workers)
        any = other->has_work() || any;
    return !run_of.injection.empty() || any;
}

} // namespace weft::detail
