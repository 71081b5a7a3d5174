#include "runtime.hpp"

#include <weft/runtime/detail/outside_work.hpp>

#include <dirent.h>

// What a "sim" run does when no fiber is ready.
//
// Its clock jumps to the next timer, unless threads are at work for tasks: what they give might come
// before. Then it keeps to the pace of the real clock, at least for a while, so that short calls always
// come before any timer. Rejected: waiting for the threads without limit, since one may be waiting for
// what the timer brings (a thread that asks from_thread::check_cancelled() again and again).
//
// Without timers, and if nothing is known that could end a wait from outside, it is a deadlock. Threads
// of the program may set events and futures without our knowing of them before: if the process has any
// other thread, it gets some time first.

namespace weft::detail {

namespace {

using namespace std::chrono_literals;

constexpr duration time_for_calls = 20ms;
constexpr duration time_for_other_threads = 5s;

bool has_other_threads() noexcept {
    DIR* const tasks = ::opendir("/proc/self/task");
    if (tasks == nullptr) return true; // perhaps
    unsigned entries = 0;
    while (::readdir(tasks) != nullptr)
        ++entries;
    ::closedir(tasks);
    return entries > 3; // ".", ".." and this one
}

unsigned* counter_of(outside_work::kind what) noexcept {
    worker* const here = this_worker();
    if (here == nullptr || here->run_of.sim == nullptr) return nullptr;
    return what == outside_work::kind::call ? &here->run_of.sim->calls_outside
                                            : &here->run_of.sim->doors;
}

} // namespace

outside_work::outside_work(kind what) noexcept : counter_(counter_of(what)) {
    if (counter_ != nullptr) ++*counter_;
}

outside_work::~outside_work() {
    if (counter_ != nullptr) --*counter_;
}

// In real time. True: somebody has, or may have, made a fiber ready, or set a deadline before `timer`,
// which is what the caller knows of.
bool worker::sim_sleep(duration at_most, time_point timer) noexcept {
    bool interrupted = true;
    run_of.idle.announce_sleep(index, false);                                           // W1, W2
    if (run_of.injection.empty() && !run_of.stopping.load(std::memory_order_seq_cst) && // W3
        timers.earliest() >= timer) {                                                   //  "
        time_point const until = runtime::real_now() + std::min(at_most, duration::max() / 4);
        std::lock_guard const guard(poll_lock);
        unsigned const events = poll->collect(at_most, poller::caller::owner);
        if (events != 0) dispatch(*this, events);
        interrupted = events != 0 || at_most == duration::max() || runtime::real_now() < until;
    }
    run_of.idle.retract(index);
    run_of.idle.stop_searching();
    // What came when the time was up had nobody to interrupt.
    return interrupted || !run_of.injection.empty() || timers.earliest() < timer;
}

void worker::sim_idle() noexcept {
    sim_schedule& sim = *run_of.sim;
    bool const visited = run_of.has_visitors(); // before the look at what they leave
    if (fiber* const injected = take_injected()) return sim.push(*injected);
    if (visited || run_of.stopping.load(std::memory_order_relaxed)) return; // same thread
    if (poll_now(*this) != 0 || !sim.empty()) return;
    if (run_of.quiescence_waiters.load(std::memory_order_relaxed) != 0) // same thread
        return run_of.wake_quiescence_waiters();
    if (time_point const timer = timers.earliest(); timer != time_point::max()) {
        duration const pace = std::max(timer - run_of.now(), time_for_calls);
        if (sim.calls_outside != 0 && sim_sleep(pace, timer)) return;
        sim.jump_to(timer);
        note_time(run_of.now());
        timers.expire(run_of.now());
        return;
    }
    if (sim.calls_outside != 0 || sim.doors != 0 || poll->is_used()) {
        sim_sleep(duration::max(), time_point::max());
    } else if (!has_other_threads() || !sim_sleep(time_for_other_threads, time_point::max())) {
        run_of.break_deadlock();
    }
}

} // namespace weft::detail
