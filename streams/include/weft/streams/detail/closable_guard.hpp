#pragma once

#include <weft/io/error.hpp>
#include <weft/sync/resource_guard.hpp>

#include <atomic>
#include <string>
#include <utility>

namespace weft::detail {

/// The resource_guard of something that can be closed. What is closed is not busy (R4): whom its
/// close() has woken is inside until he has run.
///
/// Threads  any
class closable_guard {
public:
    explicit closable_guard(std::string action) : guard_(std::move(action)) {}

    /// Errors: closed_resource_error, busy_resource_error
    [[nodiscard]] resource_guard::entry enter() {
        try {
            resource_guard::entry inside = guard_.enter();
            check_open();
            return inside;
        } catch (busy_resource_error const&) {
            check_open();
            throw;
        }
    }
    /// Before those inside are woken: they must not come back in.
    void close() noexcept { closed_.store(true, std::memory_order_release); } // check_open()

private:
    void check_open() const {
        if (closed_.load(std::memory_order_acquire)) throw closed_resource_error(); // close()
    }

    resource_guard guard_;
    std::atomic<bool> closed_ = false;
};

} // namespace weft::detail
