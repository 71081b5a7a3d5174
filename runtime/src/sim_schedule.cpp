#include "sim_schedule.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace weft::detail {

namespace {
constexpr std::int16_t budget_without_chance = 128;
constexpr std::int16_t largest_budget = 16;   // small: each yield is a place where orders differ
constexpr std::uint64_t odds_of_stealing = 8; // one in so many, also from a worker that has work
} // namespace

sim_schedule::sim_schedule(std::uint64_t seed, unsigned workers)
    : random_(seed * 2 + workers), fifo_(seed == 0 && workers <= 1), queues_(std::max(1u, workers)) {}

// splitmix64: every seed, small ones too, starts a different sequence.
std::uint64_t sim_schedule::draw(std::uint64_t below) {
    std::uint64_t word = random_ += 0x9e3779b97f4a7c15u;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return (word ^ (word >> 31)) % below;
}

void sim_schedule::push(fiber& runnable) noexcept {
    ++ready_;
    try {
        queues_[here_].push_back(&runnable);
    } catch (std::bad_alloc const&) { // it must run all the same
        runnable.next = nullptr;
        (aside_ != nullptr ? aside_last_->next : aside_) = &runnable;
        aside_last_ = &runnable;
    }
}

fiber* sim_schedule::take(queue& from, std::size_t place) {
    std::swap(from.front(), from[place]);
    fiber* const taken = from.front();
    from.pop_front();
    --ready_;
    return taken;
}

// The oldest of the next worker that has any, from a drawn one on.
fiber* sim_schedule::steal() {
    std::size_t victim = draw(queues_.size());
    while (queues_[victim].empty())
        victim = (victim + 1) % queues_.size();
    return take(queues_[victim], 0);
}

// Some worker takes its oldest fiber, the one just woken, or, since the real queues have more sources
// than these, any other. What a fiber then makes runnable stays with the worker that runs it.
fiber* sim_schedule::pop() {
    if (empty()) return nullptr;
    if (aside_ != nullptr) {
        --ready_;
        return std::exchange(aside_, aside_->next);
    }
    if (fifo_) return take(queues_.front(), 0);
    here_ = draw(queues_.size());
    queue& own = queues_[here_];
    if (own.empty() || (queues_.size() > 1 && draw(odds_of_stealing) == 0)) return steal();
    switch (draw(4)) {
    case 0:
        return take(own, 0);
    case 1:
        return take(own, own.size() - 1);
    default:
        return take(own, draw(own.size()));
    }
}

std::int16_t sim_schedule::draw_budget() {
    return fifo_ ? budget_without_chance : std::int16_t(1 + draw(largest_budget));
}

std::uint64_t sim_schedule::draw_timer_order() {
    constexpr unsigned room_for_numbers = 40;
    std::uint64_t const number = timers_++; // makes it unique
    return fifo_ ? number : (draw(std::uint64_t(1) << (64 - room_for_numbers)) << room_for_numbers) + number;
}

} // namespace weft::detail
