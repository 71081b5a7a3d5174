#pragma once

// Relacy changes between its threads by longjmp, which a fortified libc takes for a mistake and
// aborts. Before any other header.
#undef _FORTIFY_SOURCE

// Before relacy, which makes macros of `delete`, `assert` and the names of the memory orders.
#include <weft/runtime/detail/atomics.hpp>

#include <relacy/relacy.hpp>

// `$` stays: it is how relacy's own variables and semaphores learn where they are used.
#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno
#undef memory_order_relaxed
#undef memory_order_consume
#undef memory_order_acquire
#undef memory_order_release
#undef memory_order_acq_rel
#undef memory_order_seq_cst

#include <cstdint>

namespace weft { namespace model {

enum class fence { full, none, update_of_the_word };

/// The machine as the protocols expect it. A seeded bug derives from it and takes one promise back.
struct as_specified {
    // Atomicity. Without it the operation falls apart into a load and a store.
    static constexpr bool exchange_is_atomic = true;
    static constexpr bool compare_exchange_is_atomic = true;
    static constexpr bool fetch_add_is_atomic = true; // and fetch_sub
    static constexpr bool fetch_or_is_atomic = true;
    /// The exchange does not even load: a store with release order, the classic shortcut.
    static constexpr bool exchange_is_a_release_store = false;

    static constexpr model::fence full_fence = fence::full;

    static constexpr rl::memory_order of_load(rl::memory_order asked) { return asked; }
    static constexpr rl::memory_order of_store(rl::memory_order asked) { return asked; }
    static constexpr rl::memory_order of_update(rl::memory_order asked) { return asked; }
};

struct exchange_as_a_release_store : as_specified {
    static constexpr bool exchange_is_a_release_store = true;
};
struct exchange_in_two_steps : as_specified {
    static constexpr bool exchange_is_atomic = false;
};
struct compare_exchange_in_two_steps : as_specified {
    static constexpr bool compare_exchange_is_atomic = false;
};
struct fetch_add_in_two_steps : as_specified {
    static constexpr bool fetch_add_is_atomic = false;
};
struct fetch_or_in_two_steps : as_specified {
    static constexpr bool fetch_or_is_atomic = false;
};
struct without_fence : as_specified {
    static constexpr model::fence full_fence = fence::none;
};
/// What the library does under ThreadSanitizer; no bug.
struct fence_by_update : as_specified {
    static constexpr model::fence full_fence = fence::update_of_the_word;
};
/// acquire and release, but no single total order.
struct without_total_order : as_specified {
    static constexpr rl::memory_order of_load(rl::memory_order asked) {
        return asked == rl::mo_seq_cst ? rl::mo_acquire : asked;
    }
    static constexpr rl::memory_order of_store(rl::memory_order asked) {
        return asked == rl::mo_seq_cst ? rl::mo_release : asked;
    }
    static constexpr rl::memory_order of_update(rl::memory_order asked) {
        return asked == rl::mo_seq_cst ? rl::mo_acq_rel : asked;
    }
};
struct without_acquire : as_specified {
    static constexpr rl::memory_order of_load(rl::memory_order) { return rl::mo_relaxed; }
    static constexpr rl::memory_order of_update(rl::memory_order asked) {
        return asked == rl::mo_relaxed || asked == rl::mo_acquire ? rl::mo_relaxed : rl::mo_release;
    }
};
struct without_release : as_specified {
    static constexpr rl::memory_order of_store(rl::memory_order) { return rl::mo_relaxed; }
    static constexpr rl::memory_order of_update(rl::memory_order asked) {
        return asked == rl::mo_relaxed || asked == rl::mo_release ? rl::mo_relaxed : rl::mo_acquire;
    }
};

/// Where an operation stands in the source, for relacy's account of a schedule that fails.
struct place {
    rl::debug_info info;

    place(char const* function = __builtin_FUNCTION(), char const* file = __builtin_FILE(),
          unsigned line = __builtin_LINE())
        : info(function, file, line) {}
};

/// rl::atomic with the interface of std::atomic, on a given machine.
template <class T, class Machine> class modelled_atomic {
public:
    using order = rl::memory_order;

    modelled_atomic() {}
    modelled_atomic(T value) : inner_(value) {}

    T load(order asked, place at = place()) const {
        return inner_.load(Machine::of_load(asked), at.info);
    }
    void store(T value, order asked, place at = place()) {
        inner_.store(value, Machine::of_store(asked), at.info);
    }

    T exchange(T value, order asked, place at = place()) {
        if (Machine::exchange_is_a_release_store) {
            inner_.store(value, rl::mo_release, at.info);
            return T();
        }
        if (!Machine::exchange_is_atomic) return in_two_steps(value, asked, at, keep_right());
        return inner_.exchange(value, Machine::of_update(asked), at.info);
    }
    T fetch_or(T bits, order asked, place at = place()) {
        if (!Machine::fetch_or_is_atomic) return in_two_steps(bits, asked, at, bitwise_or());
        return inner_.fetch_or(bits, Machine::of_update(asked), at.info);
    }
    T fetch_add(T value, order asked, place at = place()) {
        if (!Machine::fetch_add_is_atomic) return in_two_steps(value, asked, at, sum());
        return inner_.fetch_add(value, Machine::of_update(asked), at.info);
    }
    T fetch_sub(T value, order asked, place at = place()) { return fetch_add(-value, asked, at); }

    bool compare_exchange_strong(T& seen, T next, order asked, place at = place()) {
        if (!Machine::compare_exchange_is_atomic) return compare_then_store(seen, next, asked, at);
        return inner_.compare_exchange_strong(seen, next, Machine::of_update(asked), at.info);
    }
    bool compare_exchange_weak(T& seen, T next, order asked, place at = place()) {
        if (!Machine::compare_exchange_is_atomic) return compare_then_store(seen, next, asked, at);
        return inner_.compare_exchange_weak(seen, next, Machine::of_update(asked), at.info);
    }

    /// For assertions: the newest value, without being an operation of the model.
    T newest() const { return inner_.debug_value(); }

private:
    struct keep_right {
        T operator()(T, T right) const { return right; }
    };
    struct bitwise_or {
        T operator()(T left, T right) const { return left | right; }
    };
    struct sum {
        T operator()(T left, T right) const { return left + right; }
    };

    // As strong as a split operation can be, so that only the lack of atomicity is found.
    static order load_half(order) { return Machine::of_load(rl::mo_seq_cst); }
    static order store_half(order) { return Machine::of_store(rl::mo_seq_cst); }

    template <class Operation>
    T in_two_steps(T operand, order asked, place at, Operation operation) {
        T const old = inner_.load(load_half(asked), at.info);
        inner_.store(operation(old, operand), store_half(asked), at.info);
        return old;
    }
    bool compare_then_store(T& seen, T next, order asked, place at) {
        T const old = inner_.load(load_half(asked), at.info);
        bool const equal = old == seen;
        seen = old;
        if (equal) inner_.store(next, store_half(asked), at.info);
        return equal;
    }

    rl::atomic<T> inner_;
};

/// The policy for the protocols of weft/runtime/detail.
template <class Machine = as_specified> struct relacy_atomics {
    template <class T> using atomic = modelled_atomic<T, Machine>;

    static constexpr rl::memory_order relaxed = rl::mo_relaxed;
    static constexpr rl::memory_order acquire = rl::mo_acquire;
    static constexpr rl::memory_order release = rl::mo_release;
    static constexpr rl::memory_order acq_rel = rl::mo_acq_rel;
    static constexpr rl::memory_order seq_cst = rl::mo_seq_cst;

    template <class T>
    static void full_fence(modelled_atomic<T, Machine>& word, place at = place()) {
        if (Machine::full_fence == fence::full) rl::atomic_thread_fence(rl::mo_seq_cst, at.info);
        if (Machine::full_fence == fence::update_of_the_word) word.fetch_add(0, seq_cst, at);
    }
};

}} // namespace weft::model
