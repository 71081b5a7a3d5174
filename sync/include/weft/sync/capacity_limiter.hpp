#pragma once

#include <weft/runtime/detail/task_identity.hpp>
#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/sync/error.hpp>

#include <compare>
#include <cstddef>
#include <set>
#include <vector>

namespace weft {

namespace detail {
class claimed_waiters;
}

struct capacity_limiter_statistics {
    double borrowed_tokens = 0;
    double total_tokens = 0;
    std::vector<void const*> borrowers; ///< a task by an address that is its own while it lives
    std::size_t tasks_waiting = 0;
};

/// Lends a number of tokens, one to a borrower; who finds none waits for one to come back.
///
/// Fair: a token that comes back goes to whoever has waited longest, and is reserved at once. The total
/// may change while tokens are out: lowered, nobody is asked to give one back, but nothing is lent
/// until enough have returned. A borrower is the current task, or whatever the address says; what
/// a task holds, it alone gives back.
///
/// Threads       acquire() and the calls without `on_behalf_of`: any task; the rest: any thread
/// Cancellation  acquire() and acquire_on_behalf_of() are cancellation points, also when a token is free;
///               they leave nothing behind
/// Errors        std::logic_error (the borrower has a token already, or has none to give back);
///               std::invalid_argument (a total that is no whole number, or negative); would_block
///               (the nowait calls); no_event_loop_error
/// Source        AnyIO CapacityLimiter
class capacity_limiter {
public:
    explicit capacity_limiter(double total_tokens); ///< 0 and infinity allowed
    capacity_limiter(capacity_limiter const&) = delete;
    capacity_limiter& operator=(capacity_limiter const&) = delete;

    void acquire();
    bool try_acquire();
    void acquire_nowait();
    void release();

    void acquire_on_behalf_of(void const* borrower);
    bool try_acquire_on_behalf_of(void const* borrower);
    void acquire_on_behalf_of_nowait(void const* borrower);
    void release_on_behalf_of(void const* borrower);

    double total_tokens() const;
    void set_total_tokens(double);
    double borrowed_tokens() const;
    double available_tokens() const; ///< negative after the total was lowered below what is lent
    capacity_limiter_statistics statistics() const;

private:
    struct holder {
        void const* address;
        detail::task_identity task = {}; // of a task; else none
        auto operator<=>(holder const&) const = default;
    };
    using borrower_set = std::set<holder>;
    using entry = borrower_set::node_type; // made before the lock is taken, freed after
    enum class attempt : unsigned char { must_wait, taken, refused };

    static entry make_entry(holder const&);
    static holder current_task(char const* call);
    bool is_free() const;                   // under the lock
    attempt take(entry&);                   //  "
    void lend(detail::claimed_waiters&);    //  "
    attempt take_now(entry&);
    void take_or_wait(holder const&, char const* call);
    bool try_acquire_for(holder const&);
    void release_for(holder const&);

    mutable detail::wait_queue queue_;
    borrower_set borrowers_; // under the lock
    double total_;           //  "
};

} // namespace weft
