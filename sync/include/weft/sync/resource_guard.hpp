#pragma once

#include <weft/sync/error.hpp>

#include <atomic>
#include <string>
#include <utility>

namespace weft {

/// Admits one user at a time and turns a second one away, for what two tasks must not do at once.
///
///     auto const inside = guard_.enter(); // until the end of the block
///
/// Threads  any thread; what one user did is seen by the next
/// Errors   busy_resource_error (somebody is inside, be it the same task)
/// Source   AnyIO ResourceGuard
class resource_guard {
public:
    /// Held while inside; leaves when destroyed.
    class [[nodiscard]] entry {
    public:
        explicit entry(resource_guard& of) noexcept : guard_(&of) {}
        entry(entry&& other) noexcept : guard_(std::exchange(other.guard_, nullptr)) {}
        entry& operator=(entry other) noexcept {
            std::swap(guard_, other.guard_);
            return *this;
        }
        ~entry() {
            if (guard_ != nullptr)
                guard_->busy_.store(false, std::memory_order_release); // pairs with enter()
        }

    private:
        resource_guard* guard_;
    };

    resource_guard() : resource_guard("using") {}
    explicit resource_guard(std::string action) : action_(std::move(action)) {}
    resource_guard(resource_guard const&) = delete;
    resource_guard& operator=(resource_guard const&) = delete;

    [[nodiscard]] auto enter() {
        if (busy_.exchange(true, std::memory_order_acquire)) // pairs with ~entry()
            throw busy_resource_error(action_);
        return entry(*this);
    }

private:
    std::string action_;
    std::atomic<bool> busy_ = false;
};

} // namespace weft
