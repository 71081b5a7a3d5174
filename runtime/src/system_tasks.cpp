#include <weft/runtime/detail/system_tasks.hpp>

#include "context_values.hpp"
#include "runtime.hpp"
#include "task.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/swallowed.hpp>
#include <weft/runtime/error.hpp>

#include <utility>

namespace weft::detail {

namespace {
constexpr char const* reason = "the run ended";
}

// A task that runs, in the list of those that close() cancels.
struct system_tasks::member {
    system_tasks& of;
    cancel_scope& scope;
    member* previous = nullptr;
    member* next = nullptr;

    member(system_tasks& tasks, cancel_scope& own) : of(tasks), scope(own) {
        std::lock_guard const guard(of.lock_);
        next = of.first_;
        if (next != nullptr) next->previous = this;
        of.first_ = this;
        if (of.closed_) cancel_because(scope, reason);
    }
    ~member() {
        std::lock_guard const guard(of.lock_);
        (previous != nullptr ? previous->next : of.first_) = next;
        if (next != nullptr) next->previous = previous;
    }
    member(member const&) = delete;
    member& operator=(member const&) = delete;
};

// Counted until it is gone, which keeps the run from ending. Nothing suspends afterwards: the worker comes
// to the end of the task before it sees the end of the run.
struct system_tasks::body {
    std::shared_ptr<system_tasks> of;
    system_job* job;

    body(std::shared_ptr<system_tasks> tasks, system_job& what)
        : of(std::move(tasks)), job(&what) {}
    body(body&& other) noexcept
        : of(std::move(other.of)), job(std::exchange(other.job, nullptr)) {}
    body& operator=(body&&) = delete;
    ~body() {
        if (of == nullptr) return;
        if (job != nullptr) job->cannot_run();
        of->leave();
    }
    void operator()() {
        cancel_scope own;
        own.run([&] {
            member const listed(*of, own);
            std::exchange(job, nullptr)->run();
            note_cancellation_handled(*current_fiber()); // it went on to who asked
        });
        release_context(std::exchange(current_fiber()->context_variables, nullptr)); // may wait: before leave()
    }
};

system_tasks::system_tasks(runtime& run) : run_of_(run) {}

bool system_tasks::start(system_job& job) {
    auto const self = shared_from_this();
    {
        std::lock_guard const guard(lock_);
        if (closed_) return false;
        ++count_;
    }
    using placed = task_body<void, body>;
    body counted(self, job); // from here on
    new_task task({.name = "from_thread"}, placed::size, placed::alignment);
    new (task.place()) placed::call(std::move(counted));
    task.set_body(placed::operations, nullptr, __builtin_return_address(0));
    task.launch(run_of_.root_group, nullptr);
    return true;
}

void system_tasks::leave() noexcept {
    std::lock_guard const guard(lock_);
    if (--count_ == 0 && waiter_ != nullptr)
        wake(*std::exchange(waiter_, nullptr), epoch_, wake_reason::event);
}

void system_tasks::close() noexcept {
    {
        std::lock_guard const guard(lock_);
        closed_ = true;
        for (member* each = first_; each != nullptr; each = each->next)
            cancel_because(each->scope, reason);
        if (count_ == 0) return;
    }
    parking wait("run()", cancellable::no);
    {
        std::lock_guard const guard(lock_);
        if (count_ == 0) {
            wait.withdraw(); // nobody else ends it
            return;
        }
        waiter_ = &wait.owner();
        epoch_ = wait.epoch();
    }
    wait.suspend();
    std::lock_guard const guard(lock_); // whoever woke us has left
}

std::shared_ptr<system_tasks> current_system_tasks(char const* call) {
    worker* const here = this_worker();
    if (here == nullptr) {
        refuse_in_forked_child(call);
        throw no_event_loop_error(std::string(call) + " was called outside of run()");
    }
    return here->run_of.system;
}

} // namespace weft::detail
