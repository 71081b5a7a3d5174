#pragma once

#include "fiber_slab.hpp"
#include "injection_queue.hpp"
#include "monitor.hpp"
#include "sim_schedule.hpp"
#include "worker.hpp"

#include <weft/runtime/context_var.hpp>
#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/detail/idle_word.hpp>
#include <weft/runtime/detail/service.hpp>
#include <weft/runtime/detail/system_tasks.hpp>
#include <weft/runtime/run.hpp>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace weft::detail {

/// One run(): its workers and what they share. Lives on the stack of run_first_task().
class runtime {
public:
    explicit runtime(run_options const&); // makes the workers; no thread runs yet
    ~runtime();
    runtime(runtime const&) = delete;
    runtime& operator=(runtime const&) = delete;

    /// Runs the scheduler on this thread and the others until the first task has ended.
    void run(new_task& first_task);
    void stop() noexcept; // the first task has ended; any worker

    /// Another thread becomes this worker; the caller's no longer is. Errors: std::system_error
    void hand_over(worker&);

    /// Nothing can end the wait of any task: the tree of tasks is kept and all tasks are cancelled; if
    /// that was in vain before, through their shields. Ends the process if it was in vain altogether.
    void break_deadlock() noexcept;
    /// The tree of tasks of a deadlock, or empty.
    std::string const& deadlock() const { return deadlock_; }

    /// Makes it runnable; the caller may be any thread.
    void schedule(fiber&) noexcept;

    /// A searcher for work that was just made visible, if one is needed.
    void notify() noexcept {
        int const chosen = idle.notify();
        if (chosen != idle_word<>::nobody) workers[unsigned(chosen)]->poll->interrupt();
    }
    void wake_worker(unsigned worker) noexcept {
        if (idle.wake(worker)) workers[worker]->poll->interrupt();
    }

    /// The first worker that is not busy all the time, else the given one.
    worker& with_time_left(worker& otherwise) noexcept;

    /// To be called when there is something for a monitor to do: it is there from here on. Where no thread can be
    /// had for it, the next call tries again. Any thread; the run lives.
    void watch() noexcept {
        if (!is_watched.load(std::memory_order_relaxed)) start_watching(); // stays so
    }

    time_point now() const noexcept { return sim ? sim->now() : real_now(); }
    static time_point real_now() noexcept;

    /// A thread that is not a worker is about to make something runnable: the run does not end, and is
    /// not called quiet, before it leaves.
    class visit {
    public:
        explicit visit(runtime& run) noexcept : visit(&run) {}
        explicit visit(runtime* run) noexcept : run_(run) { // null: no visit
            if (run_ != nullptr) run_->visitors_.fetch_add(1, std::memory_order_seq_cst); // has_visitors()
        }
        ~visit() {
            if (run_ != nullptr) run_->visitors_.fetch_sub(1, std::memory_order_release); // "; run()
        }
        visit(visit const&) = delete;
        visit& operator=(visit const&) = delete;

    private:
        runtime* run_;
    };
    bool has_visitors() const noexcept {
        return visitors_.load(std::memory_order_seq_cst) != 0; // pairs with visit
    }

    /// For threads from outside that make many tasks: lets the workers run some of them, where it takes that.
    void let_workers_catch_up() noexcept {
        if (single_cpu) let_workers_run();
    }

    std::uint64_t new_task_id() noexcept { // outside the workers, which have ranges of their own
        return foreign_ids_.fetch_add(1, std::memory_order_relaxed); // unique is enough
    }

    std::uint64_t const serial; // of this run in the process, from 1 on
    run_options const options;
    unsigned const stack_class;
    std::unique_ptr<sim_schedule> sim; // null: real time, real threads
    idle_word<> idle;
    injection_queue injection;
    std::vector<std::unique_ptr<worker>> workers;
    bool const single_cpu; // spinning would only take time from who is waited for
    std::atomic<bool> stopping = false;
    std::atomic<std::size_t> quiescence_waiters = 0;
    std::atomic<std::uint64_t> awakenings = 0; // of workers that slept while somebody waited for quiet
    std::atomic<bool> monitor_dozes = false;
    std::atomic<bool> is_watched; // the monitor has a thread, or "sim" needs none; stays so

    // waiters of wait_all_tasks_blocked()
    wait_queue quiescence;
    void wake_quiescence_waiters() noexcept;

    service_list services;
    cancel_scope root_scope; // of the first task, under "sim": break_deadlock()
    cancel_scope group_scope; // tasks that fail in the group, for want of a stack, are no concern of others
    group_state root_group{group_scope};

    std::mutex values_mutex; // run variables
    std::unordered_map<variable_key, std::shared_ptr<void const>> values;

    std::shared_ptr<system_tasks> const system = std::make_shared<system_tasks>(*this);

    std::unique_ptr<monitor> watcher;

private:
    void schedule_elsewhere(fiber&, worker* here) noexcept;
    void let_workers_run() noexcept;
    void start_threads();
    [[gnu::cold]] void start_watching() noexcept;
    void serve(worker&) noexcept;
    void become_worker(worker&) noexcept;
    worker* wait_for_hand_over() noexcept;

    std::string deadlock_;
    unsigned attempts_to_break_ = 0;
    fiber* first_ = nullptr;
    std::vector<std::thread> threads_;
    std::mutex hand_over_mutex_; // and those that are started for it, in threads_
    std::condition_variable handed_over_;
    std::vector<worker*> without_thread_;
    std::size_t spare_threads_ = 0;
    std::atomic<unsigned> visitors_ = 0; // threads from outside that are making something runnable
    std::atomic<std::uint64_t> foreign_ids_ = 1;
};

/// Runs of this process, for dumps. Calls visit(runtime&) under a lock.
void for_each_runtime(void (*visit)(runtime&, void*), void* argument);

/// For fork(): whoever holds the lock sees all runs, and none begins or ends.
void lock_list_of_runs();
void unlock_list_of_runs();
bool has_runs(); ///< under the lock

} // namespace weft::detail
