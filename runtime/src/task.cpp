#include "task.hpp"

#include "abort.hpp"
#include "context_values.hpp"
#include "demangle.hpp"
#include "mutex_wait.hpp"
#include "runtime.hpp"
#include "scope_access.hpp"

#include <weft/runtime/detail/callable_name.hpp>
#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/detail/swallowed.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <memory>
#include <new>
#include <system_error>

#include <dlfcn.h>

namespace weft::detail {

namespace {

// Gives a control block that nobody knows any more back to the worker that is here.
void recycle(fiber& block) noexcept {
    if ((block.flags & fiber::owns_name) != 0) std::free(const_cast<char*>(block.name));
    if ((block.flags & fiber::body_on_heap) != 0) std::free(block.body);
    release_context(std::exchange(block.context_variables, nullptr));
    block.name = nullptr;
    block.flags = 0;
    block.body = nullptr;
    if (block.owned_mutexes != 0) return; // mutexes name it for ever: it must stay a finished one
    worker* const here = this_worker();
    if (here != nullptr)
        here->fibers.give(block);
    else
        fiber_slabs::give_one(block);
}

std::exception_ptr& stored_error(fiber& of) noexcept {
    return *std::launder(reinterpret_cast<std::exception_ptr*>(of.storage));
}

// Who refers to a block. Owners: the run until the value is in its place, or else the end was told, and each handle;
// with the last of them goes the value, so that it is destroyed by the task itself or by who had a handle, and is
// waited for in neither case. Lookers keep the block alone: reports, and the run until the end was told.
constexpr std::uint32_t looker = 1;
constexpr std::uint32_t owner = 256;
constexpr std::uint32_t most_lookers = 200;
constexpr std::uint32_t most_owners = (~std::uint32_t(0) / owner) - 1000; // leaves room for those who are about to die

constexpr std::uint32_t owners_in(std::uint32_t references) { return references / owner; }

bool has_result_to_destroy(fiber const& of) noexcept {
    if (of.operations->destroy_result == nullptr) return false;
    outcome const how = of.result.load(std::memory_order_relaxed); // the last owner: ordered by the references
    return how == outcome::value || how == outcome::pending; // the run owns it no longer, but has not told yet
}

void free_block(fiber& of) noexcept {
    if (of.result.load(std::memory_order_relaxed) == outcome::failed) // the last reference: nobody writes
        stored_error(of).~exception_ptr();
    recycle(of);
}

// By the task, whose value is in its place: it goes on as a looker. What nobody has a handle to goes at once.
void leave_value_to_handles(fiber& of) noexcept {
    std::uint32_t const before =
        of.references.fetch_sub(owner - looker, std::memory_order_acq_rel); // pairs with release_owner()
    if (owners_in(before) == 1) of.operations->destroy_result(of.body);
}

// The run's own, at the end.
void release_by_run(fiber& of) noexcept {
    bool const was_left = of.operations->destroy_result != nullptr &&
                          of.result.load(std::memory_order_relaxed) == outcome::value; // written by the run
    was_left ? end_look(of) : release_owner(of);
}

void wake_joiners(fiber& of) noexcept { // under its lock
    while (wait_node* const node = of.joiners.pop_front()) {
        fiber& waiter = *node->waiter;
        std::uint64_t const epoch = node->epoch;
        wake(waiter, epoch, wake_reason::event);
    }
}

// The order matters: the outcome is there before the state says finished; both under the lock under
// which cancellers look (delivery I5); the group is told last, since it may be gone afterwards. An end
// that is of no interest to the group but for the count is left to the caller to tell: its group.
group_state* end_task(fiber& of, outcome how, std::exception_ptr error,
                      bool cancellation_escaped) noexcept {
    release_context(std::exchange(of.context_variables, nullptr)); // RV4: gone before anybody is told
    note_task_ended(of, false); // what destructors did with a cancellation is not for the next task in the block
    group_state* group = nullptr;
    if (of.base != nullptr && scope_access::is_of_start(*of.base))
        static_cast<start_record*>(of.base)->child_ends();
    if (how == outcome::failed) {
        if ((of.flags & fiber::body_on_heap) == 0) of.body = nullptr; // the place is the error's now
        new (of.storage) std::exception_ptr(error);
    }
    {
        std::lock_guard const guard(of.scopes);
        of.result.store(how, std::memory_order_release); // pairs with done()
        of.state.store(task_state::finished, std::memory_order_release); // pairs with reports
        group = of.group;
        wake_joiners(of);
    }
    if (of.owned_mutexes != 0) [[unlikely]]
        tell_mutex_waiters(of);
    if (error == nullptr && !cancellation_escaped) return group;
    if (error != nullptr && of.operations->fail_body == nullptr) group->child_failed(of, std::move(error));
    fiber* const ended = &of;
    group->children_ended(&ended, 1, cancellation_escaped);
    // Nobody finds the block here while it goes to the next task; the monitor's look does no harm.
    this_worker()->current.store(nullptr, std::memory_order_relaxed); // ours
    release_by_run(of);
    return nullptr;
}

// The scope and the group of a child of start(), which the body alone may have kept so far.
std::shared_ptr<start_record> record_of(fiber& of) {
    if (of.base == nullptr || !scope_access::is_of_start(*of.base)) return nullptr;
    return static_cast<start_record*>(of.base)->shared_from_this();
}

// A child with a handle runs in a scope of its own, which is all that the handle can cancel (NX1).
outcome run_in_own_scope(fiber& self) {
    cancel_scope own;
    bool requested = false;
    bool const finished = own.run([&] {
        {
            std::lock_guard const guard(self.scopes);
            requested = self.cancel_requested;
        }
        if (requested) cancel_because(own, "the task's handle was cancelled");
        self.operations->run(self, self.body);
    });
    return finished ? outcome::value : outcome::cancelled;
}

} // namespace

void* fiber::place_for_body(std::size_t size, std::size_t alignment) {
    if (size <= inline_bytes && alignment <= 16) return body = storage;
    // Not operator new, whose counterpart would have to be told the alignment again.
    std::size_t const lines = std::max<std::size_t>(alignment, 64); // a cache line at least
    void* const place = std::aligned_alloc(lines, (size + lines - 1) / lines * lines);
    if (place == nullptr) throw std::bad_alloc();
    flags |= body_on_heap;
    return body = place;
}

group_state* run_task(fiber& self) noexcept {
    std::shared_ptr<start_record> const keep = record_of(self); // until the task has ended
    std::exception_ptr error;
    outcome how = outcome::value;
    bool escaped = false;
    try {
        if ((self.flags & fiber::has_own_scope) != 0)
            how = run_in_own_scope(self);
        else
            self.operations->run(self, self.body);
        note_task_ended(self, how == outcome::value);
    } catch (cancelled const&) {
        how = outcome::cancelled;
        escaped = true;
    } catch (abi::__forced_unwind const&) { // cannot end in the middle of a thread
        die("a thread that runs fibers was cancelled with pthread_cancel() or pthread_exit()");
    } catch (...) { // goes to the group and to the handles
        how = outcome::failed;
        error = std::current_exception();
    }
    if (how != outcome::value) note_task_ended(self, false);
    if (error == nullptr && (error = mutex_left_locked(self)) != nullptr) {
        if (how == outcome::value && self.operations->destroy_result != nullptr)
            self.operations->destroy_result(self.body);
        how = outcome::failed;
    }
    if (how == outcome::value && self.operations->destroy_result != nullptr) leave_value_to_handles(self);
    return end_task(self, how, std::move(error), escaped);
}

void ended_batch::flush() noexcept {
    if (count_ == 0) return;
    group_->children_ended(ended_, count_, false);
    while (count_ > 0)
        release_by_run(*ended_[--count_]);
}

void fail_unstarted(fiber& of, std::exception_ptr error) noexcept {
    std::shared_ptr<start_record> const keep = record_of(of);
    if (of.operations->fail_body != nullptr) of.operations->fail_body(of.body, error);
    of.operations->destroy_body(of.body);
    end_task(of, outcome::failed, std::move(error), false);
}

void add_owner(fiber& of) noexcept {
    std::uint32_t const before = of.references.fetch_add(owner, std::memory_order_relaxed); // the caller has one
    if (owners_in(before) > most_owners) die("a task has too many handles");
}

void release_owner(fiber& of) noexcept {
    std::uint32_t seen = of.references.load(std::memory_order_acquire); // pairs with the releases below
    while (seen != owner) { // else nobody else has one, and nobody can come
        bool const is_last = owners_in(seen) == 1;
        std::uint32_t const left = seen - owner + (is_last ? looker : 0); // looks on until the value is gone
        if (!of.references.compare_exchange_weak(seen, left, std::memory_order_acq_rel, // what others did to it
                                                 std::memory_order_acquire))            //  is visible
            continue;
        if (!is_last) return;
        if (has_result_to_destroy(of)) of.operations->destroy_result(of.body);
        return end_look(of);
    }
    if (has_result_to_destroy(of)) of.operations->destroy_result(of.body);
    free_block(of);
}

bool begin_look(fiber& of) noexcept {
    std::uint32_t seen = of.references.load(std::memory_order_relaxed); // the caller keeps it
    do
        if (seen % owner >= most_lookers) return false;
    while (!of.references.compare_exchange_weak(seen, seen + looker, std::memory_order_relaxed)); //  "
    return true;
}

void end_look(fiber& of) noexcept {
    if (of.references.fetch_sub(looker, std::memory_order_acq_rel) == looker) // what others did to it is visible
        free_block(of);
}

std::string describe_address(void const* address) {
    Dl_info info{};
    if (address == nullptr || ::dladdr(address, &info) == 0) return "an unknown place";
    std::string text;
    if (info.dli_sname != nullptr) {
        text = demangled(info.dli_sname);
    } else {
        char const* const slash = std::strrchr(info.dli_fname, '/');
        text = slash != nullptr ? slash + 1 : info.dli_fname;
    }
    char offset[32];
    auto const* const start = info.dli_sname != nullptr ? info.dli_saddr : info.dli_fbase;
    std::snprintf(offset, sizeof offset, "+0x%zx",
                  std::size_t(static_cast<char const*>(address) - static_cast<char const*>(start)));
    return text + offset;
}

std::string callable_name(std::type_info const& type, void const* function) {
    if (function == nullptr) return demangled(type.name());
    std::string const text = describe_address(function);
    return text.ends_with("+0x0") ? text.substr(0, text.rfind('+')) : text; // else it has no symbol of its own
}

std::string task_name(fiber const& of) {
    bool const is_function = (of.flags & fiber::name_is_function) != 0;
    if (of.name != nullptr && !is_function) return of.name;
    if (of.operations == nullptr) return "?";
    return callable_name(of.operations->type, is_function ? of.name : nullptr);
}

std::string describe_origin(fiber const& of) {
    return "task '" + task_name(of) + "', spawned in " + describe_address(of.spawn_site);
}

std::string describe_caller() {
    fiber const* const self = current_fiber();
    return self != nullptr ? "task '" + task_name(*self) + "'" : "a thread outside of any task";
}

task_info describe(fiber& of) {
    task_info info;
    info.id = of.id;
    info.name = task_name(of);
    info.stack_size = stack_classes::bytes_of(of.stack_class);
    info.pending_cancellation = has_pending_cancellation(of);
    std::lock_guard const guard(of.scopes);
    info.state = of.state.load(std::memory_order_relaxed); // under the lock, but for running and ready
    if (of.parent_id != 0) info.parent_id = of.parent_id;
    if (info.state == task_state::waiting) { // it does not end while its lock is held, nor does its run
        if (char const* const call = of.waiting_on.load(std::memory_order_relaxed)) // a literal
            info.waiting_on = call;
        info.waited = between(of.waiting_since.load(std::memory_order_relaxed), // a hint
                              coarse(of.runtime->now()));
    }
    return info;
}

new_task::new_task(task_options const& options, std::size_t body_size, std::size_t body_alignment) {
    worker* const here = this_worker();
    if (here == nullptr) refuse_in_forked_child("starting a task");
    unsigned size_class = stack_classes::count;
    if (options.stack_size != 0) {
        if (options.stack_size < stack_classes::smallest ||
            (size_class = stack_classes::of(scaled_stack_size(options.stack_size))) ==
                stack_classes::count)
            throw std::invalid_argument("task_options::stack_size " +
                                        std::to_string(options.stack_size) + " is not between " +
                                        std::to_string(stack_classes::smallest) + " and " +
                                        std::to_string(stack_classes::largest));
    }
    fiber_ = here != nullptr ? here->make_fiber() : fiber_slabs::take_for_thread();
    if (fiber_ == nullptr) throw std::bad_alloc();
    fiber_->stack_class = std::uint8_t(size_class); // `count`: that of the run
    fiber_->operations = nullptr;
    try {
        fiber_->place_for_body(body_size, body_alignment);
        if (!options.name.empty()) {
            char* const copy = ::strdup(options.name.c_str());
            if (copy == nullptr) throw std::bad_alloc();
            fiber_->name = copy;
            fiber_->flags |= fiber::owns_name;
        }
    } catch (std::bad_alloc const&) {
        recycle(*fiber_);
        throw;
    }
    fiber_->pinned_to.store(options.pinned ? fiber::first_worker : fiber::any_worker,
                            std::memory_order_relaxed); // not published yet
    fiber_->references.store(owner, std::memory_order_relaxed); //  "
}

new_task::~new_task() {
    if (fiber_ == nullptr) return;
    if (fiber_->operations != nullptr) fiber_->operations->destroy_body(fiber_->body);
    recycle(*fiber_); // nobody knows it: it was never seen as unfinished
}

void* new_task::place() const {
    return fiber_->body;
}

void new_task::set_body(body_operations const& operations, void const* function,
                        void const* return_address) {
    fiber_->operations = &operations;
    // Within the call: what it returns to may be another line, or another function if it is the last of its own.
    fiber_->spawn_site = static_cast<char const*>(return_address) - 1;
    if (function != nullptr && fiber_->name == nullptr) {
        fiber_->name = static_cast<char const*>(function);
        fiber_->flags |= fiber::name_is_function;
    }
}

void new_task::keep_for_handle() {
    fiber_->references.store(2 * owner, std::memory_order_relaxed); // not published yet
    fiber_->flags |= fiber::has_own_scope;
}

fiber& new_task::launch(group_state& group) {
    return launch(group, &group.scope());
}

fiber& new_task::launch(group_state& group, cancel_scope* base) {
    fiber& made = *fiber_;
    worker* const here = this_worker();
    if (!group.was_opened()) group.check_open();
    runtime& run = group.run_of();
    bool const at_home = here != nullptr && &here->run_of == &run;
    made.runtime = &run;
    made.context = nullptr;
    made.stage = stack_stage::none;
    made.has_unarmed_scopes = false;
    made.caught_exceptions = nullptr;
    made.uncaught_exceptions = 0;
    made.attention.store(0, std::memory_order_relaxed); // published by the run queue
    made.cancel_requested = false;
    made.base = base;
    made.innermost.store(base, std::memory_order_relaxed); //  "
    made.open_groups = nullptr;
    made.group = &group;
    made.joiners = {};
    made.result.store(outcome::pending, std::memory_order_relaxed);     //  "
    made.waiting_unwinding.store(0, std::memory_order_relaxed);         //  "
    made.timer_slot = 0;
    made.suspension_bans = 0;
    if (at_home) {
        if (made.stack_class == stack_classes::count) made.stack_class = std::uint8_t(run.stack_class);
        made.id = here->next_id++;
    }
    made.parent_id = group.host_id();
    fiber* const spawner = here != nullptr ? here->current.load(std::memory_order_relaxed) : nullptr; // our own
    made.context_variables = inherit_context(spawner);
    if (at_home)
        group.adopt(made);
    else
        group.adopt_from_outside(made); // from here on the child keeps the run from ending
    fiber_ = nullptr;
    if (here == nullptr) run.let_workers_catch_up();
    if (at_home && made.pinned_to.load(std::memory_order_relaxed) == fiber::any_worker) // not shared
        here->push_new(made);
    else
        run.schedule(made);
    return made;
}

task_look::task_look(fiber& at) noexcept : fiber_(begin_look(at) ? &at : nullptr) {}

task_look::~task_look() {
    if (fiber_ != nullptr) end_look(*fiber_);
}

task_info task_look::info() const {
    return describe(*fiber_);
}

task_reference::task_reference(task_reference const& other) noexcept : fiber_(other.fiber_) {
    if (fiber_ != nullptr) add_owner(*fiber_);
}

task_reference::~task_reference() {
    if (fiber_ != nullptr) release_owner(*fiber_);
}

bool task_reference::done() const noexcept {
    return fiber_->result.load(std::memory_order_acquire) != outcome::pending; // pairs with end_task()
}

bool task_reference::cancelled() const noexcept {
    return fiber_->result.load(std::memory_order_acquire) == outcome::cancelled; // end_task()
}

task_info task_reference::info() const {
    return describe(*fiber_);
}

void* task_reference::body() const noexcept {
    return fiber_->body;
}

void task_reference::cancel() const {
    cancel_scope* own = nullptr;
    bool first = false;
    {
        std::lock_guard const guard(fiber_->scopes);
        if (done()) return;
        first = !std::exchange(fiber_->cancel_requested, true);
        // The outermost scope that the task entered itself, if it has come so far.
        for (cancel_scope* scope = fiber_->innermost.load(std::memory_order_acquire); // enter()
             scope != fiber_->base; scope = scope_access::outer(*scope))
            own = scope;
        if (own == nullptr || (!first && scope_access::is_delivered(*own))) return;
        scope_access::mark(*own, false, "the task's handle was cancelled");
    }
    deliver_cancellation(*fiber_, *own, first);
}

void task_reference::join(cancellable how) const {
    fiber& task = *fiber_;
    while (!done()) {
        parking wait("task_handle::wait", how);
        wait_node node(wait);
        {
            std::lock_guard const guard(task.scopes);
            if (done()) {
                wait.withdraw(); // whoever was first: the value is there
                break;
            }
            task.joiners.push_back(node);
        }
        wake_reason const why = wait.suspend();
        {
            std::lock_guard const guard(task.scopes);
            task.joiners.remove(node);
        }
        if (why == wake_reason::cancelled) throw_cancelled(wait.owner());
    }
}

void task_reference::wait_until_ended() const {
    join(cancellable::no);
}

void task_reference::wait_until_done() const {
    enter_blocking_call("task_handle::wait");
    join(cancellable::yes);
    fiber& task = *fiber_;
    switch (task.result.load(std::memory_order_acquire)) { // pairs with end_task()
    case outcome::failed:
        try {
            std::rethrow_exception(stored_error(task));
        } catch (...) { // nested in what is thrown
            std::throw_with_nested(task_failed("task '" + task_name(task) + "' failed"));
        }
    case outcome::cancelled:
        throw task_cancelled("task '" + task_name(task) + "' was cancelled");
    case outcome::pending:
    case outcome::value:
        return;
    }
}

} // namespace weft::detail
