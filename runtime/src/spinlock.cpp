#include <weft/runtime/detail/spinlock.hpp>

#include "abort.hpp"
#include "this_thread.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/report.hpp>

#include <sched.h>

namespace weft::detail {

namespace {
// A waiter stays away for longer each time that it looks in vain: one that keeps reading the word takes
// the line from the holder, and a core that keeps the lock for some turns has everything it guards in its
// cache (weft-bench --workers 2 chan_mpmc).
constexpr int shortest_pause = 4;
constexpr int longest_pause = 256;
constexpr int looks_before_yield = 10; // some 20 us: the holder's core has probably been stopped
constexpr int looks_in_forked_child = 100; // whoever held it for so long did not come along
} // namespace

void wait_for_spinlock(std::atomic<std::uint8_t>& state) noexcept {
    int pauses = shortest_pause;
    for (int look = 1;; ++look) {
        for (int pause = 0; pause < pauses; ++pause)
            pause_cpu();
        if (pauses < longest_pause) pauses *= 2;
        if (state.load(std::memory_order_relaxed) == 0 && // the exchange decides
            state.exchange(1, std::memory_order_acquire) == 0) // pairs with unlock()
            return;
        if (look % looks_before_yield == 0) ::sched_yield();
        if (look % looks_in_forked_child == 0 && is_forked_child()) // calls that do not wait are not refused
            die("a call waits for a lock that another thread held when fork() was called, and that did not come "
                "along: leave such a child by exec or _exit");
    }
}

#ifdef WEFT_CHECKED
void note_lock_taken(lock_rank rank) {
    held_locks& held = this_thread_locks();
    auto const value = std::uint8_t(rank);
    if (held.count > 0 && held.ranks[held.count - 1] >= value)
        die("internal locks taken in the wrong order: rank %u while holding rank %u", unsigned(value),
            unsigned(held.ranks[held.count - 1]));
    if (held.count < sizeof held.ranks) held.ranks[held.count] = value;
    ++held.count;
}

void note_lock_released(lock_rank rank) noexcept {
    held_locks& held = this_thread_locks();
    for (unsigned place = held.count; place-- > 0;) {
        if (held.ranks[place] != std::uint8_t(rank)) continue;
        for (; place + 1 < held.count; ++place)
            held.ranks[place] = held.ranks[place + 1];
        --held.count;
        return;
    }
    die("an internal lock of rank %u was released that is not held", unsigned(rank));
}

void check_no_lock_held(char const* call) noexcept {
    held_locks const& held = this_thread_locks();
    if (held.count != 0) die("an internal lock of rank %u is held in %s", held.ranks[0], call);
    report_held_locks(call);
}
#endif

} // namespace weft::detail
