#pragma once

#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/inspect.hpp>

#include <iosfwd>
#include <string>

namespace weft::detail {

/// Runs the body of the task that is the current fiber to its end. Gives the group that must still be
/// told of it, or null if it was; until then the block is held.
group_state* run_task(fiber&) noexcept;

/// Ends of tasks of one group that are told at once. Only while a child of that group is about to run
/// next on the same stack: the group cannot end before that one does, so nobody waits for these.
class ended_batch {
public:
    void add(group_state& group, fiber& ended) noexcept {
        group_ = &group;
        ended_[count_++] = &ended;
    }
    bool must_flush_before(fiber const& next) const noexcept {
        return count_ == most || next.group != group_;
    }
    void flush() noexcept;

private:
    static constexpr unsigned most = 16;
    unsigned count_ = 0;
    group_state* group_ = nullptr;
    fiber* ended_[most];
};

/// Ends the process with a message if the task, which is the current one, must not suspend now.
void check_may_suspend(fiber const&, char const* call) noexcept;

/// The end of a task that could not be begun, as if its body had thrown this.
void fail_unstarted(fiber&, std::exception_ptr) noexcept;

/// One more handle. By whoever has one, or the task's maker.
void add_owner(fiber&) noexcept;
void release_owner(fiber&) noexcept;
/// Keeps the block, but not the task's value. Under the task's lock while it has not ended, or by the task itself.
/// False: too many look already. Never waits.
bool begin_look(fiber&) noexcept;
void end_look(fiber&) noexcept;

/// For people. Of a live task, or one that is held by a reference.
std::string task_name(fiber const&);
std::string describe_origin(fiber const&); // name and spawn site
std::string describe_caller();             // who does what is refused: the current task, if any
std::string describe_address(void const*); // symbol and offset
task_info describe(fiber&);

/// dump_tasks(), or the tree alone.
enum class tree_detail : std::uint8_t { waits, waits_and_stacks };
void write_tasks(std::ostream&, tree_detail);

/// Lets others run; no cancellation point.
void yield_current(char const* call) noexcept;

} // namespace weft::detail
