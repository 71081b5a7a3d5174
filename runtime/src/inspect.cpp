#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>

#include "mutex_wait.hpp"
#include "runtime.hpp"
#include "scope_access.hpp"
#include "stack_walk.hpp"
#include "task.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <optional>
#include <ostream>
#include <unordered_map>

namespace weft {

namespace {

using namespace std::chrono_literals;

using detail::tree_detail;

constexpr std::size_t most_frames = 64;

using frames = std::vector<void*>;

// Numbers are unique within a run only.
using task_key = std::pair<detail::runtime const*, std::uint64_t>;
constexpr task_key top{nullptr, 0};

struct seen_task {
    detail::runtime const* run; // for comparing: it may have ended
    task_info info;
    std::string origin;
    std::string holder; // of the mutex it waits for
    frames stack;
};

task_key key_of(seen_task const& task) {
    return {task.run, task.info.id};
}

// Of a fiber that is held by a reference. One that waits is kept from going on while its stack is walked
// (wait_word, L1 and L2); so is its run from ending, and from being called quiet. Others run, or are in
// a queue to run: nothing is known of their stacks.
frames stack_of(detail::fiber& of) {
    std::array<void*, most_frames> found;
    std::size_t count = 0;
    if (&of == detail::current_fiber()) {
        count = detail::walk_here(found.data(), found.size());
        return frames(found.begin(), found.begin() + std::ptrdiff_t(count));
    }
    std::optional<detail::runtime::visit> visiting;
    {
        std::lock_guard const guard(of.scopes);
        if (of.state.load(std::memory_order_relaxed) != task_state::waiting) return {}; // a look
        visiting.emplace(*of.runtime); // which does not end: the task has not, and cannot while we lock
    }
    if (!of.wait.hold()) return {};
    count = detail::walk_context(of.context, found.data(), found.size());
    if (of.wait.park()) detail::schedule(of);
    return frames(found.begin(), found.begin() + std::ptrdiff_t(count));
}

// Every unfinished task of a run, or of all. Each block is kept while it is looked at.
std::vector<seen_task> look_at_tasks(detail::runtime const* of, tree_detail detail_wanted) {
    std::vector<detail::task_look> held;
    detail::fiber_slabs::for_each([&](detail::fiber& each) {
        if (each.state.load(std::memory_order_relaxed) == task_state::finished) return; // a hint
        if (held.size() == held.capacity()) held.reserve(2 * held.size() + 64); // not under the lock
        std::lock_guard const guard(each.scopes);
        // Pairs with launch(): the block may have been given to another task since the first look.
        if (each.state.load(std::memory_order_acquire) == task_state::finished) return; // launch()
        if (of != nullptr && each.runtime != of) return;
        if (detail::task_look look(each); look) held.push_back(std::move(look));
    });
    std::vector<seen_task> seen;
    for (detail::task_look& next : held) {
        detail::task_look const until_seen = std::move(next);
        detail::fiber& each = *until_seen;
        seen_task task{each.runtime, detail::describe(each), detail::describe_origin(each), {}, {}};
        if (task.info.state == task_state::waiting) task.holder = detail::describe_holder(each);
        if (detail_wanted == tree_detail::waits_and_stacks) task.stack = stack_of(each);
        if (task.info.state != task_state::finished) seen.push_back(std::move(task));
    }
    std::sort(seen.begin(), seen.end(), [](seen_task const& left, seen_task const& right) {
        return key_of(left) < key_of(right);
    });
    return seen;
}

detail::runtime const* run_here() {
    detail::worker const* const here = detail::this_worker();
    return here != nullptr ? &here->run_of : nullptr;
}

char const* word_for(task_state state) {
    switch (state) {
    case task_state::ready: return "ready";
    case task_state::running: return "running";
    case task_state::waiting: return "waiting";
    case task_state::finished: break;
    }
    return "finished";
}

std::string text_of(duration waited) {
    using namespace std::chrono;
    if (waited < 10s) return std::to_string(duration_cast<milliseconds>(waited).count()) + " ms";
    return std::to_string(duration_cast<seconds>(waited).count()) + " s";
}

class tree_writer {
public:
    tree_writer(std::ostream& out, tree_detail wanted) : out_(out), wanted_(wanted) {}

    void add(task_key const& parent, seen_task const& task) { children_.emplace(parent, &task); }

    void write(task_key const& parent, std::size_t depth) {
        auto const [first, last] = children_.equal_range(parent);
        for (auto place = first; place != last; ++place) {
            seen_task const& task = *place->second;
            out_ << std::string(2 * depth, ' ');
            write_line(task);
            if (!task.stack.empty()) write_stack(task, 2 * depth + 4);
            write(key_of(task), depth + 1);
        }
    }

private:
    void write_line(seen_task const& task) {
        out_ << "- " << task.info.name << " (" << task.info.id << "): " << word_for(task.info.state);
        if (!task.info.waiting_on.empty()) out_ << " in " << task.info.waiting_on;
        if (!task.info.waiting_on.empty() && wanted_ == tree_detail::waits_and_stacks)
            out_ << " for " << text_of(task.info.waited);
        if (!task.holder.empty()) out_ << ", " << task.holder;
        if (task.info.pending_cancellation) out_ << ", cancelled";
        out_ << "; " << task.origin.substr(task.origin.rfind(", spawned") + 2) << '\n';
    }

    void write_stack(seen_task const& task, std::size_t indentation) {
        std::string const margin(indentation, ' ');
        auto const [before, is_new] = stacks_.emplace(task.stack, task.info.id);
        if (!is_new) {
            out_ << margin << "the same stack as task " << before->second << '\n';
            return;
        }
        for (std::size_t number = 0; number < task.stack.size(); ++number)
            out_ << margin << '#' << number << ' ' << name_of(task.stack[number]) << '\n';
    }

    // Of the call, not of what would be next: that may be another function.
    std::string const& name_of(void* return_address) {
        std::string& name = names_[return_address];
        if (name.empty()) name = detail::describe_address(static_cast<char*>(return_address) - 1);
        return name;
    }

    std::ostream& out_;
    tree_detail const wanted_;
    std::multimap<task_key, seen_task const*> children_;
    std::map<frames, std::uint64_t> stacks_; // and who had it first
    std::unordered_map<void*, std::string> names_;
};

} // namespace

task_info get_current_task() {
    return detail::describe(detail::require_fiber("get_current_task"));
}

std::vector<task_info> get_running_tasks() {
    detail::refuse_in_forked_child("get_running_tasks"); // the tasks' locks may be nobody's
    std::vector<task_info> infos;
    for (seen_task& each : look_at_tasks(run_here(), tree_detail::waits))
        infos.push_back(std::move(each.info));
    return infos;
}

void dump_tasks(std::ostream& out) {
    detail::refuse_in_forked_child("dump_tasks"); // as above
    detail::write_tasks(out, tree_detail::waits_and_stacks);
}

void detail::write_tasks(std::ostream& out, tree_detail wanted) {
    std::vector<seen_task> const tasks = look_at_tasks(run_here(), wanted);
    tree_writer tree(out, wanted);
    for (seen_task const& task : tasks) {
        task_key const parent(task.run, task.info.parent_id.value_or(0));
        auto const place = std::lower_bound(
            tasks.begin(), tasks.end(), parent,
            [](seen_task const& other, task_key const& key) { return key_of(other) < key; });
        bool const known = place != tasks.end() && key_of(*place) == parent;
        tree.add(known ? parent : top, task); // unknown: it has ended meanwhile
    }
    out << tasks.size() << " tasks\n";
    tree.write(top, 0);
}

run_statistics get_run_statistics() {
    detail::worker const* const here = detail::this_worker();
    if (here == nullptr) {
        detail::refuse_in_forked_child("get_run_statistics");
        throw no_event_loop_error("get_run_statistics() was called outside of run()");
    }
    run_statistics statistics;
    for (auto const& each : here->run_of.workers) {
        auto const read = [](std::atomic<std::uint64_t> const& counter) {
            return counter.load(std::memory_order_relaxed); // a snapshot
        };
        detail::worker_counters const& counters = each->counters;
        statistics.workers.push_back({read(counters.switches), read(counters.spawned),
                                      read(counters.steals), read(counters.sleeps),
                                      read(counters.polls), read(counters.events)});
    }
    statistics.stacks_in_use = detail::stack_depot::stacks_in_use();
    statistics.stack_guards =
        detail::current_guard_method() == detail::guard_method::guard_markers
            ? "guard markers (MADV_GUARD_INSTALL)"
            : "protected pages (mprotect)";
    return statistics;
}

void wait_all_tasks_blocked() {
    detail::fiber& self = detail::enter_blocking_call("wait_all_tasks_blocked");
    detail::runtime& run = *self.runtime;
    detail::parking wait("wait_all_tasks_blocked");
    detail::wait_node node(wait);
    run.quiescence.lock();
    run.quiescence.waiters.push_back(node);
    run.quiescence_waiters.fetch_add(1, std::memory_order_seq_cst); // pairs with sleep()
    run.quiescence.unlock();
    for (auto const& each : run.workers)
        run.wake_worker(each->index); // so that it sleeps in the way that await_events() needs
    detail::wake_reason const why = wait.suspend();
    run.quiescence.lock();
    if (node.next != nullptr) {
        run.quiescence.waiters.remove(node);
        run.quiescence_waiters.fetch_sub(1, std::memory_order_relaxed); // under the lock
    }
    run.quiescence.unlock();
    if (why == detail::wake_reason::cancelled) detail::throw_cancelled(self);
}

} // namespace weft
