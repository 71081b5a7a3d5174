#pragma once

#include <cstdint>

namespace stress {

/// splitmix64: any seed will do, and a drawn number seeds an independent source for another task.
class random_source {
public:
    explicit random_source(std::uint64_t seed) : state_(seed) {}

    std::uint64_t operator()() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    std::uint64_t below(std::uint64_t end) { return (*this)() % end; }
    std::uint64_t between(std::uint64_t first, std::uint64_t last) {
        return first + below(last - first + 1);
    }
    bool one_in(std::uint64_t odds) { return below(odds) == 0; }
    random_source split() { return random_source((*this)()); }

private:
    std::uint64_t state_;
};

} // namespace stress
