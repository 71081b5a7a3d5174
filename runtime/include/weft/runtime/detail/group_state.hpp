#pragma once

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/wait_queue.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace weft {

/// How a task is set up. `name`: for people, else derived from the callable. `stack_size`: bytes of
/// stack with its guard, 0: the run's. `pinned`: it stays on the worker that first runs it.
struct task_options {
    std::string name{};
    std::size_t stack_size = 0;
    bool pinned = false;
};

namespace detail {

/// The children of a task group and what became of them. Lives in the group, on the host's stack.
///
/// States: new -> open (host: open()) -> closed (host: close(), when nothing is pending). While open,
/// `pending_` counts children and start() calls under way; the count and `open_` change together under
/// the lock, so a spawn is either waited for or refused (G3).
class group_state {
public:
    explicit group_state(cancel_scope& scope) : scope_(scope) {}
    group_state(group_state const&) = delete;
    group_state& operator=(group_state const&) = delete;

    /// Errors: std::logic_error (opened before)
    void check_new() const;
    /// The group of a run's first task, which nobody hosts: what fails in it is not recorded.
    void open_as_root(runtime&) noexcept;
    /// From now on children can come. The host stands in the scope.
    void open(fiber& host);

    void check_open(); ///< Errors: std::logic_error (not open)
    /// Adds a child. Errors: std::logic_error (not open).
    void adopt(fiber& child);
    /// The same by a thread that does not keep the run from ending: what comes from the run is taken while
    /// the group is known to be open.
    void adopt_from_outside(fiber& child);
    /// A start() call is under way: the group stays open. Errors: std::logic_error (not open).
    void hold();
    void release_hold() noexcept;

    /// A child left with an error: recorded, and the others are cancelled.
    void child_failed(fiber& child, std::exception_ptr error) noexcept;
    /// The end of children. Nothing of the group may be touched afterwards.
    void children_ended(fiber* const* ended, unsigned count, bool cancellation_escaped) noexcept;

    /// The host's body left with an error of its own.
    void host_failed(std::exception_ptr error) noexcept;

    /// Waits until nothing is pending. False: the wait could be cancelled and was.
    bool wait_until_settled(char const* call, cancellable);
    /// Afterwards nobody can become a child. Only when nothing is pending; false: something is again.
    bool try_close(fiber& host);
    /// Waits, not to be cancelled, and closes. Then the errors as one exception_group, if any.
    std::exception_ptr close(fiber& host);
    std::exception_ptr first_error() const {
        return errors_.empty() ? error_without_memory_ : errors_.front();
    }
    bool cancellation_escaped() const { return cancellation_escaped_; }

    cancel_scope& scope() { return scope_; }
    bool was_opened() const { return run_ != nullptr; }
    runtime& run_of() const { return *run_; }
    std::uint64_t host_id() const { return host_id_; } // 0: nobody hosts it

private:
    friend class group_walk;
    friend class start_record;

    void record(std::exception_ptr error, std::string origin) noexcept;
    void admit(fiber& child);           // under lock_
    void link(fiber& child) noexcept;   //  "
    void unlink(fiber& child) noexcept; // under lock_
    void settle(std::size_t fewer) noexcept; // under lock_: less is pending; wakes the host at 0

    cancel_scope& scope_;
    runtime* run_ = nullptr;
    fiber* host_ = nullptr;
    std::uint64_t host_id_ = 0;
    spinlock<lock_rank::group> lock_;
    bool open_ = false;                 // under lock_
    bool cancellation_escaped_ = false; // under lock_
    bool hint_ = false;                 // a cancellation came by: children look. Under lock_
    std::atomic<bool> queued_ = false;  // in a delivery's list: must not close
    fiber* children_ = nullptr;         // a ring through siblings. Under lock_
    std::size_t pending_ = 0;           // under lock_
    wait_node* host_waiting_ = nullptr; // under lock_
    group_state* next_open_ = nullptr;  // under the host's lock
    group_state* next_queued_ = nullptr; // under delivery
    std::vector<std::exception_ptr> errors_; // under lock_
    std::vector<std::string> origins_;       // under lock_
    std::exception_ptr error_without_memory_; // the first that found none to be kept with the others. Under lock_
};

/// A task in the making: a control block with room for its body. Destroyed without launch() it leaves
/// nothing behind.
class new_task {
public:
    new_task(task_options const&, std::size_t body_size, std::size_t body_alignment);
    ~new_task();
    new_task(new_task const&) = delete;
    new_task& operator=(new_task const&) = delete;

    void* place() const;
    fiber& block() const { return *fiber_; } // until launch(), and what launch() gives
    void keep_for_handle(); // one owner more, and a scope of its own
    /// The body stands in its place: from here on it is destroyed with the task.
    void set_body(body_operations const&, void const* function, void const* spawn_site);

    /// Makes it a child of the group, in whose scope it runs, and runnable. Errors: std::logic_error.
    fiber& launch(group_state&);
    /// Makes it runnable in a scope and under a group that are not those of a task group.
    fiber& launch(group_state&, cancel_scope* base);

private:
    fiber* fiber_;
};

/// A look at a task by somebody who has no handle: it keeps the control block, but not the task's value. Empty where too
/// many look at once.
class task_look {
public:
    explicit task_look(fiber& at) noexcept; // under its lock while it has not ended, or by the task itself
    struct begun {}; // the look has begun already
    task_look(fiber& at, begun) noexcept : fiber_(&at) {}
    task_look(task_look&& other) noexcept : fiber_(std::exchange(other.fiber_, nullptr)) {}
    task_look& operator=(task_look&&) = delete;
    ~task_look();

    explicit operator bool() const noexcept { return fiber_ != nullptr; }
    fiber& operator*() const noexcept { return *fiber_; }
    task_info info() const;

private:
    fiber* fiber_;
};

/// What handles know of a child: its control block, kept by a reference count, and its value.
class task_reference {
public:
    task_reference() = default;
    explicit task_reference(fiber& of) noexcept : fiber_(&of) {} // takes over one reference
    task_reference(task_reference const&) noexcept;
    task_reference(task_reference&& other) noexcept : fiber_(std::exchange(other.fiber_, nullptr)) {}
    task_reference& operator=(task_reference other) noexcept {
        std::swap(fiber_, other.fiber_);
        return *this;
    }
    ~task_reference();

    void wait_until_done() const; ///< then throws task_failed or task_cancelled if it was not a value
    void wait_until_ended() const; ///< however it ends; no cancellation point
    void cancel() const;
    bool done() const noexcept;
    bool cancelled() const noexcept;
    task_info info() const;
    void* body() const noexcept;

private:
    void join(cancellable) const;

    fiber* fiber_ = nullptr;
};

/// One start() call: the child runs in a private group inside the caller's scopes until it says
/// started(), then moves under the destination. It is itself the scope at the child's base, whose place
/// in the tree changes with that move. Shared by caller and child; lives as long as the child.
class start_record : public cancel_scope, public std::enable_shared_from_this<start_record> {
public:
    start_record();
    virtual ~start_record() = default;
    start_record(start_record const&) = delete;
    start_record& operator=(start_record const&) = delete;

    /// Launches the child and waits until it has started; throws what start() throws.
    void start(new_task& task, group_state& destination);
    /// The child's half; the value is in its place already. Errors: std::logic_error (twice).
    void started();
    /// From now on started() changes nothing. By the child, before its group is told of its end.
    void child_ends() noexcept;
    /// Errors: std::logic_error (started() was called before)
    void check_not_started() const;

    group_state group; // while the caller supervises

private:
    /// pending -> moving -> moved (started()), abandoned (the caller was cancelled) or ended (the child,
    /// without started()); out of pending by CAS, so that one of them wins (S16).
    enum class phase : std::uint8_t { pending, moving, moved, abandoned, ended };

    void move_child();

    std::atomic<phase> phase_ = phase::pending;
    std::atomic<bool> called_ = false;
    group_state* destination_ = nullptr;
    fiber* child_ = nullptr;
};

} // namespace detail
} // namespace weft
