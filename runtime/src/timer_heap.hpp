#pragma once

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/fiber.hpp>
#include <weft/runtime/time.hpp>

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

namespace weft::detail {

class sim_schedule;

/// The timers of one worker: sleeping fibers and scopes with deadlines, by time and then by insertion.
///
/// A heap of four children a node, exact to the nanosecond; each timer knows its place, so it can be
/// removed. A hierarchical wheel inserts faster (6 against 30 ns at a million timers) but drains no
/// faster, rounds, and is not ordered within a tick, which the "sim" backend needs.
///
/// Any thread may insert, remove and expire.
class timer_heap {
public:
    explicit timer_heap(std::uint16_t number) : number_(number) {}

    /// From now on chance decides between equal deadlines. Before the first timer.
    void draw_order_from(sim_schedule& chance) { chance_ = &chance; }

    /// The wait of this fiber ends at that time. True: no other timer is earlier. Errors: bad_alloc.
    bool insert(fiber&, time_point when);
    bool insert(cancel_scope&, time_point when);

    /// Gives it another time, for which no memory is needed. Empty: it is not there (any more). True: the
    /// earliest of all is earlier than before.
    std::optional<bool> move(cancel_scope&, time_point when) noexcept;

    /// False: it is not there (any more).
    bool remove(fiber&) noexcept;
    bool remove(cancel_scope&) noexcept;

    /// Ends the waits and cancels the scopes whose time has come. Gives how many.
    unsigned expire(time_point now) noexcept;

    /// Of the earliest timer; never later than it really is for the owner. A hint for others.
    time_point earliest() const noexcept {
        return time_point(duration(earliest_.load(std::memory_order_seq_cst))); // pairs with insert()
    }
    std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); } // a hint

private:
    struct entry {
        time_point when;
        std::uint64_t order;
        std::uintptr_t timer; // a fiber, or a cancel_scope with the lowest bit set
    };

    bool insert(std::uintptr_t timer, time_point when);
    std::uint64_t next_order() noexcept;
    void remove_at(std::size_t place) noexcept;
    void settle(std::size_t place, entry const&) noexcept;
    void put(std::size_t place, entry const&) noexcept;
    void rise(std::size_t place, entry const&) noexcept;
    void sink(std::size_t place, entry const&) noexcept;
    void publish() noexcept;
    static bool before(entry const& left, entry const& right) {
        return left.when < right.when || (left.when == right.when && left.order < right.order);
    }
    static std::uint32_t& slot_of(std::uintptr_t timer) noexcept;
    static std::uint16_t& heap_of(std::uintptr_t timer) noexcept;

    std::uint16_t number_;
    mutable spinlock<lock_rank::timers> lock_;
    sim_schedule* chance_ = nullptr; // of a "sim" run
    std::uint64_t order_ = 0;
    std::vector<entry> entries_;
    std::atomic<duration::rep> earliest_ = duration::max().count();
    std::atomic<std::size_t> size_ = 0;
};

} // namespace weft::detail
