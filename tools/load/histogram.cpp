#include "histogram.hpp"

#include <bit>

// Everything is relaxed: numbers that nobody reads before those who count have been joined.

namespace load {

// Below `steps` each value has its bucket. Above, the bucket is the exponent and the bits that
// follow the leading one.
std::size_t histogram::bucket_of(std::uint64_t value) noexcept {
    if (value < steps) return value;
    auto const shift = unsigned(std::bit_width(value)) - 1 - steps_bits;
    return std::size_t(shift + 1) * steps + std::size_t((value >> shift) & (steps - 1));
}

std::uint64_t histogram::least_of(std::size_t bucket) noexcept {
    if (bucket < steps) return bucket;
    return (steps + bucket % steps) << (bucket / steps - 1);
}

void histogram::add(std::uint64_t value) noexcept {
    buckets_[bucket_of(value)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
    std::uint64_t seen = greatest_.load(std::memory_order_relaxed);
    while (seen < value &&
           !greatest_.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {}
}

std::uint64_t histogram::count() const noexcept {
    std::uint64_t all = 0;
    for (auto const& bucket : buckets_)
        all += bucket.load(std::memory_order_relaxed);
    return all;
}

std::uint64_t histogram::greatest() const noexcept {
    return greatest_.load(std::memory_order_relaxed);
}

double histogram::mean() const noexcept {
    std::uint64_t const all = count();
    return all == 0 ? 0 : double(sum_.load(std::memory_order_relaxed)) / double(all);
}

std::uint64_t histogram::quantile(double part) const noexcept {
    auto const wanted = std::uint64_t(part * double(count()));
    std::uint64_t passed = 0;
    for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket)
        if ((passed += buckets_[bucket].load(std::memory_order_relaxed)) > wanted)
            return least_of(bucket);
    return greatest();
}

} // namespace load
