#pragma once

#include <atomic>
#include <cstdint>

namespace weft { namespace detail {

/// The real machine: what the lock-free protocols are compiled with in the library.
///
/// The protocols of this directory (wait_word, idle_word, readiness_word, descriptor_word, next_slot) are
/// templates over such a policy, so that the model checker runs the very headers that ship. They keep
/// to C++14 for its sake.
struct hardware_atomics {
    template <class T> using atomic = std::atomic<T>;

    static constexpr std::memory_order relaxed = std::memory_order_relaxed;
    static constexpr std::memory_order acquire = std::memory_order_acquire;
    static constexpr std::memory_order release = std::memory_order_release;
    static constexpr std::memory_order acq_rel = std::memory_order_acq_rel;
    static constexpr std::memory_order seq_cst = std::memory_order_seq_cst;

    /// Orders earlier accesses before later ones, StoreLoad included. ThreadSanitizer does not model
    /// fences, so there a read-modify-write on the word the protocol guards takes its place.
    template <class T> static void full_fence(std::atomic<T>& word) {
#if defined(__SANITIZE_THREAD__)
        word.fetch_add(0, std::memory_order_seq_cst); // the fence's
#else
        (void)word;
        std::atomic_thread_fence(std::memory_order_seq_cst); // what it pairs with, the caller says
#endif
    }
};

}} // namespace weft::detail
