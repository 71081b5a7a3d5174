#include "monitor.hpp"

#include "runtime.hpp"

#include <chrono>

#include <pthread.h>
#include <sys/prctl.h>

namespace weft::detail {

namespace {
using namespace std::chrono_literals;
constexpr duration look_interval = 5ms;
constexpr duration neglected_after = 5ms;  // a worker that did not serve its timers for so long
constexpr unsigned looks_before_saturated = 10; // at which a worker had not slept since the last one
constexpr unsigned looks_between_releases = 200; // idle stacks: those not needed for a second
constexpr unsigned quiet_looks_before_doze = 20; // then all that are kept ready go

/// The calling thread, and one that it starts, are sent none.
class no_signals {
public:
    no_signals() noexcept {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~no_signals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    no_signals(no_signals const&) = delete;
    no_signals& operator=(no_signals const&) = delete;

private:
    sigset_t before_;
};
} // namespace

// Goes to sleep for good when every worker sleeps, and is roused by the first that wakes:
//
//   monitor                                     worker
//   dozes = true                  (seq_cst)     idle word: own bit gone         (seq_cst)
//   all asleep? wait              (seq_cst)     dozes? rouse                    (seq_cst)

thread_settings::thread_settings() noexcept
    : slack_(::prctl(PR_GET_TIMERSLACK)),
      knows_cpus_(::pthread_getaffinity_np(::pthread_self(), sizeof cpus_, &cpus_) == 0) {
    ::pthread_sigmask(SIG_BLOCK, nullptr, &signals_);
    ::pthread_getschedparam(::pthread_self(), &policy_, &priority_);
}

void thread_settings::adopt() const noexcept {
    if (knows_cpus_) ::pthread_setaffinity_np(::pthread_self(), sizeof cpus_, &cpus_);
    ::pthread_setschedparam(::pthread_self(), policy_, &priority_);
    ::prctl(PR_SET_TIMERSLACK, slack_);
    ::pthread_sigmask(SIG_SETMASK, &signals_, nullptr);
}

monitor::monitor(runtime& run) : run_(run), stalls_(run), loads_(run.workers.size()) {}

void monitor::start() {
    std::lock_guard const guard(mutex_);
    if (ending_ || thread_.joinable()) return;
    no_signals const until_it_has_its_own_mask;
    thread_ = std::thread([this] { watch(); });
    run_.is_watched.store(true, std::memory_order_relaxed); // it is there already
}

monitor::~monitor() {
    stop();
}

void monitor::stop() noexcept {
    {
        std::lock_guard const guard(mutex_);
        ending_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
}

void monitor::rouse() noexcept {
    std::lock_guard const guard(mutex_);
    run_.monitor_dozes.store(false, std::memory_order_relaxed); // under the mutex
    changed_.notify_one();
}

void monitor::watch() {
    settings_.adopt();
    ::prctl(PR_SET_NAME, "weft-monitor");
    std::unique_lock lock(mutex_);
    duration const interval = stalls_.is_on() ? stalls_.interval() : look_interval;
    unsigned quiet = 0;
    for (unsigned looks = 0; !ending_; ++looks) {
        quiet = run_.idle.all_asleep(unsigned(run_.workers.size())) ? quiet + 1 : 0;
        if (quiet == quiet_looks_before_doze) stack_depot::release_idle_memory(true);
        if (quiet >= quiet_looks_before_doze && doze(lock)) {
            quiet = 0;
            continue;
        }
        if (looks % looks_between_releases == 0) stack_depot::release_idle_memory(false);
        changed_.wait_for(lock, interval, [this] { return ending_; });
        lock.unlock();
        look_after_workers();
        lock.lock();
    }
}

bool monitor::doze(std::unique_lock<std::mutex>& lock) {
    auto const count = unsigned(run_.workers.size());
    if (!run_.idle.all_asleep(count)) return false;
    run_.monitor_dozes.store(true, std::memory_order_seq_cst); // pairs with the worker's load
    if (!run_.idle.all_asleep(count)) {
        run_.monitor_dozes.store(false, std::memory_order_relaxed); // only we wait for it
        return false;
    }
    changed_.wait(lock, [this] {
        return ending_ || !run_.monitor_dozes.load(std::memory_order_relaxed); // under the mutex
    });
    return true;
}

void monitor::look_after_workers() noexcept {
    time_point const now = runtime::real_now();
    if (stalls_.is_on()) stalls_.look(now);
    bool work_waits = false;
    for (auto const& each : run_.workers) {
        bool const asleep = run_.idle.is_asleep(each->index);
        note_load(*each, asleep);
        if (asleep) continue;
        work_waits = work_waits || each->has_work();
        each->note_time(now);
        auto const served =
            time_point(duration(each->served_at.load(std::memory_order_relaxed))); // a hint
        if (now - served < neglected_after) continue;
        work_waits = work_waits || (each->poll->is_used() &&
                                    !each->has_stand_in.load(std::memory_order_relaxed)); // a hint
        // It looks at deadlines that are in no heap itself, at its next call (C24). One that has just been left
        // does so in vain.
        if (fiber* const busy = each->current.load(std::memory_order_relaxed)) // a hint; blocks stay blocks
            busy->attention.fetch_or(attention::clock, std::memory_order_relaxed); // a hint
        runtime::visit const visiting(run_); // what is taken out here is in no queue for a moment
        each->timers.expire(now);
        if (!each->poll->is_used() || !each->poll_lock.try_lock()) continue;
        if (each->poll->collect(duration::zero(), poller::caller::visitor) != 0) each->poll->dispatch();
        each->poll_lock.unlock();
    }
    // What a busy worker woke and keeps for itself, or what came while it was busy.
    if (work_waits) run_.notify();
}

void monitor::note_load(worker& of, bool asleep) noexcept {
    load& known = loads_[of.index];
    std::uint64_t const sleeps = of.counters.sleeps.load(std::memory_order_relaxed); // does it change?
    known.looks = asleep || sleeps != known.sleeps ? 0 : known.looks + 1;
    known.sleeps = sleeps;
    of.saturated.store(known.looks >= looks_before_saturated, std::memory_order_relaxed); // a hint
}

} // namespace weft::detail
