#include <weft/runtime/detail/fork.hpp>

#include "runtime.hpp"

#include <weft/runtime/error.hpp>

#include <atomic>
#include <mutex>
#include <string>

#include <pthread.h>

// What a fork() without exec leaves of a run.
//
//   Nothing that could be repaired: the other workers are gone, and what they held is held. So the
//   thread that called fork() is no worker any more in the child, and each call that needs one says
//   so on the slow path on which it finds none: hot paths are as they were. A task that ends there
//   all the same meets the missing worker as a fault, which overflow_report.cpp explains.
//
//   Children that exec is called for soon (posix_spawn, system, popen, open_process) do not come
//   here: they share memory until then, and no handler is called.

namespace weft::detail {

namespace {

std::atomic<bool> forked_child = false;

void before_fork() { lock_list_of_runs(); }

void after_fork_here() { unlock_list_of_runs(); }

void after_fork_there() {
    bool const had_runs = has_runs(); // under the lock
    unlock_list_of_runs();
    if (!had_runs) return;
    forked_child.store(true, std::memory_order_relaxed); // there is one thread
    set_this_worker(nullptr);
}

} // namespace

bool is_forked_child() noexcept {
    return forked_child.load(std::memory_order_relaxed); // written before there were other threads
}

void refuse_in_forked_child(char const* call) {
    if (!is_forked_child()) return;
    throw run_finished_error(std::string(call) +
                             " was called in a child of fork(), where its run did not come along: "
                             "only exec and _exit may be called there");
}

void watch_for_forks() {
    static std::once_flag once;
    std::call_once(once, [] { ::pthread_atfork(before_fork, after_fork_here, after_fork_there); });
}

} // namespace weft::detail
