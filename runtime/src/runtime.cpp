#include "runtime.hpp"

#include "abort.hpp"
#include "context_switch.hpp"
#include "cpu_count.hpp"
#include "kept_for_ever.hpp"
#include "overflow_report.hpp"
#include "scope_access.hpp"
#include "task.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/patience.hpp>
#include <weft/runtime/detail/task_identity.hpp>
#include <weft/runtime/detail/wake_batch.hpp>
#include <weft/runtime/inspect.hpp>

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include <sched.h>
#include <sys/prctl.h>

namespace weft::detail {

namespace {

constexpr std::size_t worker_limit = idle_word<>::max_workers;
constexpr std::size_t few_woken = 8; // the last of them runs next, as if it were the only one

constexpr int posts_at_once = 1000; // 256 KiB of control blocks

struct posting_pace {
    int posts = 0; // since the others were let run, to whichever runs
    yielding_look after_others;
};

[[gnu::noinline]] posting_pace& pace_of_thread() noexcept {
    thread_local posting_pace of_thread;
    return of_thread;
}

std::mutex runs_mutex;
kept_for_ever<std::vector<runtime*>> kept_runs;
std::vector<runtime*>& runs = kept_runs.value;
std::atomic<std::uint64_t> runs_so_far = 0;

unsigned count_of_workers(run_options const& options) {
    if (options.workers > worker_limit)
        throw std::invalid_argument("run_options::workers: " + std::to_string(options.workers) +
                                    " is more than " + std::to_string(worker_limit));
    if (options.workers != 0) return options.workers;
    return options.backend == "sim" ? 1 : unsigned(std::min<std::size_t>(usable_cpus(), worker_limit));
}

unsigned class_of_stacks(run_options const& options) {
    unsigned const found = options.stack_size < stack_classes::smallest
                               ? stack_classes::count
                               : stack_classes::of(scaled_stack_size(options.stack_size));
    if (found == stack_classes::count)
        throw std::invalid_argument("run_options::stack_size: " + std::to_string(options.stack_size) +
                                    " is not between " + std::to_string(stack_classes::smallest) +
                                    " and " + std::to_string(stack_classes::largest));
    return found;
}

run_options checked(run_options const& options) {
    auto const backends = all_backends();
    if (std::find(backends.begin(), backends.end(), options.backend) == backends.end())
        throw std::invalid_argument("run_options::backend: there is no backend '" + options.backend +
                                    "'");
    return options;
}

} // namespace

task_identity identity_of(fiber const& of) noexcept {
    return {of.runtime->serial, of.id};
}

time_point runtime::real_now() noexcept {
    return time_point(std::chrono::duration_cast<duration>(
        std::chrono::steady_clock::now().time_since_epoch()));
}

// The virtual workers of a "sim" run share one thread: one worker stands for all of them.
runtime::runtime(run_options const& given)
    : serial(runs_so_far.fetch_add(1, std::memory_order_relaxed) + 1), // unique is enough
      options(checked(given)), stack_class(class_of_stacks(given)),
      sim(given.backend == "sim" ? std::make_unique<sim_schedule>(given.seed, count_of_workers(given))
                                 : nullptr),
      injection(injection_queue::producers::many), single_cpu(usable_cpus() < 2), is_watched(sim != nullptr) {
    unsigned const count = sim ? 1 : count_of_workers(given);
    for (unsigned number = 0; number < count; ++number)
        workers.push_back(std::make_unique<worker>(*this, number, count));
    for (auto const& each : workers)
        each->note_time(now());
    if (sim) workers.front()->timers.draw_order_from(*sim);
    root_group.open_as_root(*this);
    watch_for_forks();
    std::lock_guard const guard(runs_mutex);
    runs.push_back(this);
}

runtime::~runtime() {
    std::lock_guard const guard(runs_mutex);
    runs.erase(std::find(runs.begin(), runs.end(), this));
}

void runtime::become_worker(worker& mine) noexcept {
    set_this_worker(&mine);
    exception_globals* const exceptions = this_thread_exception_globals();
    mine.exceptions = exceptions;
    mine.errno_address = this_thread_errno();
    mine.thread.store(::gettid(), std::memory_order_relaxed); // a wrong one does not answer
    noted_thread_stack const noted;
    prepare_thread_for_overflow();
    // The kernel may wake a sleeper 50 us late by default; sleeps and deadlines are more exact than that.
    int const slack = ::prctl(PR_GET_TIMERSLACK);
    ::prctl(PR_SET_TIMERSLACK, 1);
    exception_globals const before = *exceptions; // run() may be called in a catch block
    *exceptions = {};
    mine.run(); // afterwards it may be another thread's
    *exceptions = before;
    ::prctl(PR_SET_TIMERSLACK, slack);
    set_this_worker(nullptr);
}

void runtime::run(new_task& first_task) {
    report_overflows();
    try {
        start_threads();
    } catch (...) { // the first task has not been launched
        stop();
        for (std::thread& thread : threads_)
            thread.join();
        throw;
    }
    // Nobody can cancel it, but for a "sim" run that came to a deadlock.
    first_ = &first_task.launch(root_group, sim ? &root_scope : nullptr);
    serve(*workers.front());
    for (std::thread& thread : threads_) // no more are added: every task has ended
        thread.join();
    if (watcher != nullptr) watcher->stop();
    services.close_all();
    while (visitors_.load(std::memory_order_acquire) != 0) // pairs with ~visit()
        ::sched_yield();
    workers.clear(); // their stocks go to the next run
    stack_depot::release_idle_memory(true);
}

void runtime::start_threads() {
    if (sim) return;
    watcher = std::make_unique<monitor>(*this);
    try {
        for (std::size_t number = 1; number < workers.size(); ++number)
            threads_.emplace_back([this, number] {
                ::prctl(PR_SET_NAME, ("weft-" + std::to_string(number)).c_str());
                serve(*workers[number]);
            });
        // Beside one worker a second thread would do little, and make each system call of the first that names a
        // descriptor dearer: the kernel then counts references to it.
        if (workers.size() > 1 || watcher->reports_stalls()) watcher->start();
    } catch (std::system_error const& failure) {
        std::size_t const number = threads_.size() + 1; // the caller's thread serves worker 0
        throw std::system_error(failure.code(),
                                number < workers.size()
                                    ? "run(): no thread for worker " + std::to_string(number) + " of " +
                                          std::to_string(workers.size())
                                    : "run(): no thread for the monitor");
    }
}

void runtime::start_watching() noexcept {
    if (is_forked_child()) return; // what it took from the pollers would be missing in the parent
    try {
        watcher->start();
    } catch (std::system_error const&) { // no thread: a deadline counts where its task waits or lets others run
    } catch (std::bad_alloc const&) {    //  "
    }
}

// A thread that lost its worker to a blocking_region waits here for the next that has none.
void runtime::serve(worker& first) noexcept {
    for (worker* mine = &first; mine != nullptr; mine = wait_for_hand_over())
        become_worker(*mine);
}

worker* runtime::wait_for_hand_over() noexcept {
    std::unique_lock lock(hand_over_mutex_);
    ++spare_threads_;
    handed_over_.wait(lock, [this] {
        return !without_thread_.empty() || stopping.load(std::memory_order_relaxed); // under the mutex
    });
    --spare_threads_;
    if (without_thread_.empty()) return nullptr;
    worker* const next = without_thread_.back();
    without_thread_.pop_back();
    return next;
}

void runtime::hand_over(worker& given) {
    std::unique_lock lock(hand_over_mutex_);
    if (spare_threads_ > without_thread_.size()) {
        without_thread_.push_back(&given);
        lock.unlock();
        handed_over_.notify_one();
        return;
    }
    threads_.emplace_back([this, &given] {
        ::prctl(PR_SET_NAME, ("weft-" + std::to_string(given.index)).c_str());
        serve(given);
    });
}

void runtime::stop() noexcept {
    {
        std::lock_guard const guard(hand_over_mutex_); // pairs with wait_for_hand_over()
        stopping.store(true, std::memory_order_seq_cst); // pairs with W3 of the idle protocol
    }
    handed_over_.notify_all();
    for (auto const& each : workers)
        wake_worker(each->index);
}

void runtime::break_deadlock() noexcept {
    switch (attempts_to_break_++) {
    case 0: {
        try {
            std::ostringstream tree;
            write_tasks(tree, tree_detail::waits);
            deadlock_ = std::move(tree).str();
        } catch (std::bad_alloc const&) { // told without them
        }
        if (deadlock_.empty()) deadlock_ = "(no memory)"; // so short that it takes none
        cancel_because(root_scope, "the tasks of the run wait for one another");
        break;
    }
    case 1: // nothing else runs, and each chain of scopes stands still
        fiber_slabs::for_each([this](fiber& each) {
            if (each.state.load(std::memory_order_relaxed) == task_state::finished) return; // a hint
            std::lock_guard const guard(each.scopes); // other runs go on
            if (each.state.load(std::memory_order_acquire) == task_state::finished) return; // launch()
            if (each.runtime != this) return;
            for (cancel_scope* scope = each.innermost.load(std::memory_order_relaxed); // stands still
                 scope != each.base; scope = scope_access::outer(*scope))
                scope_access::clear_flag(*scope, scope_access::shielding);
        });
        break;
    default:
        die("tasks wait for one another in calls that cannot be cancelled:\n%s", deadlock_.c_str());
    }
    deliver_cancellation(*first_);
}

// What a fiber wakes is mostly of its own worker's run and may run anywhere.
void runtime::schedule(fiber& runnable) noexcept {
    runnable.state.store(task_state::ready, std::memory_order_release); // pairs with reports
    worker* const here = this_worker();
    std::uint16_t const pin = runnable.pinned_to.load(std::memory_order_relaxed); // it does not run
    if (here != nullptr && &here->run_of == this && !here->dispatching && pin >= fiber::first_worker)
        return here->push_woken(runnable);
    schedule_elsewhere(runnable, here);
}

void runtime::schedule_elsewhere(fiber& runnable, worker* here) noexcept {
    bool const at_home = here != nullptr && &here->run_of == this;
    std::uint16_t const pin = runnable.pinned_to.load(std::memory_order_relaxed); // it does not run
    // Once it is in a queue it may run, and with it the whole run may end while we still wake a worker.
    visit const visiting(at_home ? nullptr : this);
    if (pin < fiber::first_worker && !sim) {
        workers[pin]->push_pinned(runnable);
        if (!at_home || here->index != pin) wake_worker(pin);
    } else if (!at_home) {
        injection.push(runnable);
        notify();
    } else if (here->dispatching) {
        here->push_ready(runnable);
    } else {
        here->push_woken(runnable);
    }
}

// In a time slice a thread makes tens of thousands of tasks, more than the caches hold, and each would be begun
// with as many misses (weft-bench xpost, on one core).
void runtime::let_workers_run() noexcept {
    posting_pace& mine = pace_of_thread();
    if (++mine.posts < posts_at_once) return;
    mine.posts = 0;
    auto const before = std::int64_t(injection.size());
    if (before < posts_at_once / 2) return; // they keep up
    visit const visiting(*this); // the task that is being started is in no queue yet
    mine.after_others.look_for(
        [&] { return std::max<std::int64_t>(0, before - std::int64_t(injection.size())); });
}

worker& runtime::with_time_left(worker& otherwise) noexcept {
    for (auto const& each : workers)
        if (!each->saturated.load(std::memory_order_relaxed)) return *each; // a hint
    return otherwise;
}

// Of this run, not pinned, and too many for it to matter which is the last: straight into the queues.
void wake_batch::flush() noexcept {
    std::size_t const count = std::exchange(count_, 0);
    worker* const here = this_worker();
    std::size_t plain = 0;
    bool const together = count > few_woken && here != nullptr && !here->simulated;
    for (std::size_t step = 0; step < count; ++step) {
        fiber& each = *fibers_[step];
        if (!together || each.runtime != &here->run_of ||
            each.pinned_to.load(std::memory_order_relaxed) < fiber::first_worker) { // it does not run
            each.runtime->schedule(each);
            continue;
        }
        each.state.store(task_state::ready, std::memory_order_release); // pairs with reports
        fibers_[plain++] = &each;
    }
    if (plain != 0) here->push_woken(fibers_.data(), plain);
}

void runtime::wake_quiescence_waiters() noexcept {
    std::lock_guard const guard(quiescence);
    quiescence_waiters.store(0, std::memory_order_relaxed); // under the lock
    quiescence.wake_all();
}

void lock_list_of_runs() {
    runs_mutex.lock();
}

void unlock_list_of_runs() {
    runs_mutex.unlock();
}

bool has_runs() {
    return !runs.empty();
}

void for_each_runtime(void (*visit)(runtime&, void*), void* argument) {
    std::lock_guard const guard(runs_mutex);
    for (runtime* each : runs)
        visit(*each, argument);
}

} // namespace weft::detail
