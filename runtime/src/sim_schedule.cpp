#include "sim_schedule.hpp"

#include <utility>

namespace weft::detail {

// splitmix64: every seed, small ones too, starts a different sequence.
std::uint64_t sim_schedule::draw(std::uint64_t below) {
    std::uint64_t word = random_ += 0x9e3779b97f4a7c15u;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return (word ^ (word >> 31)) % below;
}

fiber* sim_schedule::pop() {
    if (ready_.empty()) return nullptr;
    if (!fifo_ && ready_.size() > 1) std::swap(ready_.front(), ready_[draw(ready_.size())]);
    fiber* const next = ready_.front();
    ready_.pop_front();
    return next;
}

std::int16_t sim_schedule::draw_budget() {
    return fifo_ ? std::int16_t(128) : std::int16_t(1 + draw(16));
}

} // namespace weft::detail
