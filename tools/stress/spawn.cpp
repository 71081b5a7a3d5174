#include "chaos.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <array>

namespace stress {

namespace {

// Trees of tasks whose sizes are known only afterwards, and a list of tasks from other threads.
//
// Each task runs once, each value arrives, and what was given to a task is destroyed.
class nursery {
public:
    explicit nursery(std::size_t most) : runs_(most) {}

    /// Gives the number of tasks in the tree below, this one included.
    std::uint64_t branch(random_source random, unsigned depth, token const& seal) {
        std::uint64_t const id = seal.value();
        require(runs_[id].fetch_add(1) == 0, "a task runs once");
        progress();
        if (depth == 0) return 1;
        if (random.one_in(8)) weft::lowlevel::checkpoint();
        std::atomic<std::uint64_t> size = 1;
        weft::with_task_group([&](weft::task_group& group) {
            std::vector<weft::task_handle<std::uint64_t>> handles;
            for (std::uint64_t child = random.below(8); child > 0; --child)
                add_child(group, random, depth - 1, size, handles);
            for (auto const& handle : handles) {
                size += handle.wait();
                require(handle.done() && !handle.cancelled(), "a task that was waited for is done");
            }
        });
        return size;
    }

    std::uint64_t started() const { return std::min<std::uint64_t>(next_, runs_.size()); }

    bool take_id(std::uint64_t& id) {
        id = next_.fetch_add(1);
        return id < runs_.size();
    }

    void leaf(token const& seal) {
        require(runs_[seal.value()].fetch_add(1) == 0, "a task runs once");
        ++leaves;
        progress();
    }

    void check_all_ran() const {
        for (std::uint64_t id = 0; id < started(); ++id)
            require(runs_[id] == 1, "every task that was started runs");
    }

    std::atomic<std::uint64_t> leaves = 0;

private:
    void add_child(weft::task_group& group, random_source& random, unsigned depth,
                   std::atomic<std::uint64_t>& size,
                   std::vector<weft::task_handle<std::uint64_t>>& handles) {
        constexpr std::array<std::size_t, 4> stacks{0, 64 * 1024, 32 * 1024 * slowdown, 1024 * 1024};
        std::uint64_t id = 0;
        if (!take_id(id)) return;
        auto const source = random.split();
        weft::task_options const options{.stack_size = stacks[random.below(stacks.size())],
                                         .pinned = random.one_in(16)};
        switch (random.below(4)) {
        case 0:
            return group.start_soon(
                [this, source, depth, &size, seal = token(id)] { size += branch(source, depth, seal); });
        case 1: // a body too large for the control block
            return group.start_soon([this, source, depth, &size, seal = token(id),
                                     ballast = std::array<std::byte, 200>()] {
                size += branch(source, depth, seal) + std::uint64_t(ballast[199]);
            });
        case 2:
            return group.start_soon(options, [this, source, depth, &size, seal = token(id)] {
                size += branch(source, depth, seal);
            });
        default:
            handles.push_back(group.create_task(
                options, [this, source, depth, seal = token(id)] { return branch(source, depth, seal); }));
        }
    }

    std::vector<std::atomic<int>> runs_;
    std::atomic<std::uint64_t> next_ = 0;
};

/// Lets OS threads spawn into a group for as long as it is open.
class door {
public:
    void open(weft::task_group& group) {
        std::lock_guard const guard(mutex_);
        group_ = &group;
    }
    void close() {
        std::lock_guard const guard(mutex_);
        group_ = nullptr;
    }
    void spawn(nursery& in) {
        std::lock_guard const guard(mutex_);
        std::uint64_t id = 0;
        if (group_ == nullptr || !in.take_id(id)) return;
        group_->start_soon([&in, seal = token(id)] { in.leaf(seal); });
        ++spawned;
    }
    std::uint64_t spawned = 0; // under mutex_; read when all is over

private:
    std::mutex mutex_; // never across a suspension
    weft::task_group* group_ = nullptr;
};

} // namespace

void spawn_storm(trial& now) {
    nursery tasks(now.random.between(100, 20'000 / slowdown));
    door outside;
    auto const depth = unsigned(now.random.between(1, 12));
    outside_threads const spawners(now.threads(2), now.random,
                                   [&](random_source&) { outside.spawn(tasks); });
    std::uint64_t size = 0, roots = 0;
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            outside.open(group);
            for (std::uint64_t id = 0; roots < 20 && tasks.take_id(id); ++roots)
                size += tasks.branch(now.random.split(), depth, token(id));
            // Closed by a child: the body has ended by then, the group has not.
            group.start_soon([&] {
                wait_somehow(now.random);
                outside.close();
            });
        });
    });
    require(size + tasks.leaves == tasks.started(), "every value arrives once");
    require(tasks.leaves == outside.spawned, "every task from outside runs");
    tasks.check_all_ran();
}

} // namespace stress
