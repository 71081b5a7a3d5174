#pragma once

#include <weft/runtime/detail/fiber.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>

namespace weft::detail {

/// Which mutex a fiber waits for. Beside its control block, and written only by those who
/// really wait.
///
/// Whoever looks holds up the end of the announcement, so that the mutex exists meanwhile.
class alignas(64) mutex_wait { // neighbours wait on other workers
public:
    /// Slabs of control blocks are so large, and aligned to that; behind each there are its waits.
    static constexpr std::size_t bytes_of_blocks = std::size_t(2) << 20;

    static mutex_wait& of(fiber const& waiter) noexcept {
        auto const address = reinterpret_cast<std::uintptr_t>(&waiter);
        std::uintptr_t const slab = address & ~(bytes_of_blocks - 1);
        auto* const waits = reinterpret_cast<mutex_wait*>(slab + bytes_of_blocks); // zero: no mutex
        return waits[(address - slab) / sizeof(fiber)];
    }

    /// By the waiter, before its `parking`, whose arm() orders the announcement before everything that
    /// the waiter looks at afterwards.
    class announcement {
    public:
        announcement(fiber const& waiter, void const* mutex) noexcept : wait_(of(waiter)) {
            wait_.mutex_.store(reinterpret_cast<std::uintptr_t>(mutex),
                               std::memory_order_release); // pairs with look
        }
        ~announcement() {
            std::uintptr_t seen = wait_.mutex_.load(std::memory_order_relaxed); // the CAS decides
            if ((seen & looked_at) != 0 ||
                !wait_.mutex_.compare_exchange_strong(seen, 0, std::memory_order_acquire)) // ~look
                wait_.end_after_look();
        }
        announcement(announcement const&) = delete;
        announcement& operator=(announcement const&) = delete;

    private:
        mutex_wait& wait_;
    };

    /// A look at the mutex that a fiber waits for: null, if there is none. One at a time: not nested.
    class look {
    public:
        explicit look(fiber const& waiter) noexcept;
        ~look();
        look(look const&) = delete;
        look& operator=(look const&) = delete;
        void* mutex() const noexcept { return reinterpret_cast<void*>(mutex_); }

    private:
        mutex_wait& wait_;
        std::uintptr_t mutex_ = 0;
    };

private:
    static constexpr std::uintptr_t looked_at = 1; // mutexes are aligned

    void end_after_look() noexcept;

    std::atomic<std::uintptr_t> mutex_ = 0;
};

/// What the layer of mutexes does for the runtime, which knows none. Set before the first mutex is locked.
struct mutex_operations {
    /// The fiber has ended and still owns mutexes: their waiters are told.
    void (*owner_ended)(fiber& owner) noexcept;
    /// Who owns it now, or null.
    fiber* (*owner_of)(void* mutex) noexcept;
};
void set_mutex_operations(mutex_operations const&) noexcept;

/// What a task whose body has ended normally fails with in checked builds, or null: it owns mutexes (LK8).
#ifdef WEFT_CHECKED
std::exception_ptr mutex_left_locked(fiber const&) noexcept;
std::exception_ptr mutex_left_locked() noexcept; ///< of the current one
#else
inline std::exception_ptr mutex_left_locked(fiber const&) noexcept { return nullptr; }
inline std::exception_ptr mutex_left_locked() noexcept { return nullptr; }
#endif

/// Calls visit(fiber&, void* mutex) for each fiber of the process that waits for a mutex.
void for_each_mutex_waiter(void (*visit)(fiber& waiter, void* mutex, void* argument), void* argument);

} // namespace weft::detail
