#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <array>
#include <cstddef>

namespace weft::detail {

/// Fibers that are made runnable together, in the order of add(): much cheaper for many than
/// schedule() for each. The last one of a few runs next, as with schedule().
///
///     wake_batch woken;
///     ...if (waiter.wait.deliver()) woken.add(waiter);...
///
/// Not across a switch.
class wake_batch {
public:
    wake_batch() = default;
    ~wake_batch() { flush(); }
    wake_batch(wake_batch const&) = delete;
    wake_batch& operator=(wake_batch const&) = delete;

    void add(fiber& runnable) noexcept {
        if (count_ == fibers_.size()) flush();
        fibers_[count_++] = &runnable;
    }
    void flush() noexcept;

private:
    std::array<fiber*, 64> fibers_;
    std::size_t count_ = 0;
};

} // namespace weft::detail
