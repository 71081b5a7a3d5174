#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::detail {

class stack_slab;

/// A stack, described at its own top: no memory beside the page that its fiber touches anyway.
struct stack {
    void* context;      // where it waits in its entry function, or null if it was never entered
    stack* next;        // in a pool
    char* lowest;       // first usable byte, above the guard
    std::size_t size;   // usable bytes, up to this description
    stack_slab* slab;
    std::uint32_t slot; // in the slab
    std::uint8_t size_class;
    unsigned valgrind_id;
    void* sanitizer_fiber; // ThreadSanitizer's name for what runs here

    char* top() { return reinterpret_cast<char*>(this); }
};

/// Stacks come in powers of two of address space, below each a guard page.
class stack_classes {
public:
    static constexpr std::size_t smallest = 16 * 1024;
    static constexpr std::size_t largest = 64 * 1024 * 1024;
    static constexpr unsigned count = 13;
    static constexpr std::size_t guard_size = 4096;

    /// The class for so many bytes; `count` if there is none.
    static unsigned of(std::size_t bytes) noexcept;
    static std::size_t bytes_of(unsigned size_class) noexcept { return smallest << size_class; }
};

/// What is reserved for a request of so many bytes: sanitizers make frames several times larger.
constexpr std::size_t scaled_stack_size(std::size_t bytes) noexcept {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    if (bytes > stack_classes::largest) return bytes; // refused there, too
    return bytes <= stack_classes::largest / 4 ? bytes * 4 : stack_classes::largest;
#else
    return bytes;
#endif
}

/// How stacks are guarded, chosen once for the process.
enum class guard_method : std::uint8_t { guard_markers, protected_pages };
guard_method current_guard_method() noexcept;

/// All stacks of the process. Slabs of address space, carved from the low end; each stack is guarded
/// before its first use. Any thread.
class stack_depot {
public:
    /// A chain of up to `wanted` stacks. Null: no memory, or no mappings left for guards.
    static stack* take(unsigned size_class, unsigned wanted, unsigned& count) noexcept;
    static void give(stack* chain) noexcept;

    /// Gives the memory of idle stacks back to the system: of all of them, or of those that were not
    /// needed since the last call.
    static void release_idle_memory(bool all) noexcept;

    /// A hint.
    static std::size_t idle_stacks() noexcept;

    /// Why take() gave none, for a message: ": ...", or "" if it was memory that lacked.
    static char const* shortage() noexcept;

    static std::size_t stacks_in_use() noexcept;

    /// If the address lies in a guard: true, and the usable size of that stack. Async-signal-safe.
    static bool is_guard(void const* address, std::size_t& stack_size) noexcept;
};

/// A worker's own stock, last in first out: the stack just left is the hottest.
class stack_cache {
public:
    stack* take(unsigned size_class) noexcept {
        bin& own = bins_[size_class];
        if (own.first == nullptr && !refill(own, size_class)) return nullptr;
        stack* const taken = own.first;
        own.first = taken->next;
        --own.count;
        return taken;
    }
    void give(stack& left) noexcept {
        bin& own = bins_[left.size_class];
        left.next = own.first;
        own.first = &left;
        if (++own.count > most) spill(own, most / 2);
    }
    void give_all() noexcept;

private:
    static constexpr unsigned most = 64;
    static constexpr unsigned batch = 16;
    struct bin {
        stack* first = nullptr;
        unsigned count = 0;
    };
    bool refill(bin&, unsigned size_class) noexcept;
    void spill(bin&, unsigned keep) noexcept;

    bin bins_[stack_classes::count];
};

} // namespace weft::detail
