#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace load {

/// Counts values in log-linear buckets, 64 for each power of two: quantiles are at most 1.6 % off.
///
/// Threads  add(): any; the rest when nobody adds any more
class histogram {
public:
    void add(std::uint64_t value) noexcept;

    std::uint64_t count() const noexcept;
    std::uint64_t greatest() const noexcept;
    double mean() const noexcept;

    /// The value below which that part of all values lies, 0 to 1; 0 if there are none.
    std::uint64_t quantile(double part) const noexcept;

private:
    static constexpr unsigned steps_bits = 6;
    static constexpr unsigned steps = 1u << steps_bits;
    static std::size_t bucket_of(std::uint64_t value) noexcept;
    static std::uint64_t least_of(std::size_t bucket) noexcept;

    std::array<std::atomic<std::uint64_t>, (64 - steps_bits + 1) * steps> buckets_{};
    std::atomic<std::uint64_t> sum_ = 0;
    std::atomic<std::uint64_t> greatest_ = 0;
};

} // namespace load
