#pragma once

#include <weft/runtime/detail/atomics.hpp>

#include <cstdint>

namespace weft { namespace detail {

/// Who is inside an operation on a file descriptor, and whether it is being closed.
///
//  How a descriptor is closed while others use it, and its number never touched again.
//
//    operation                                     close
//    O1  enter(): closing? refuse. Else users += 1 D1  users += 1, closing set: one RMW    (acq_rel)
//        and, for a guarded one, its busy bit: one     (it was set: somebody else closes)
//        CAS                            (acquire)  D2  end the waits of reader and writer
//    O2  system calls                              D3  leave()
//    O3  leave(): users -= 1, busy bit clear
//        (acq_rel); last one out while closing:
//        close(2)
//
//  I1  close(2) happens once, after the last operation has left: nobody uses a number that the kernel
//      may have given away.
//  I2  No operation enters after D1.
//  I3  One reader and one writer at a time; a second gets `busy` and changes nothing.
//  Modelled in tests/model/descriptor_word_model.cpp.
template <class Atomics = hardware_atomics> class descriptor_word {
public:
    using word = std::uint32_t;

    static constexpr word closing = 1;
    static constexpr word reading = 2;
    static constexpr word writing = 4;
    static constexpr word user = 8;

    enum class entry : std::uint8_t { entered, closed, busy };

    descriptor_word() : word_(closing) {}
    descriptor_word(descriptor_word const&) = delete;
    descriptor_word& operator=(descriptor_word const&) = delete;

    /// A new descriptor; nobody else may know it yet.
    void open() { word_.store(0, Atomics::release); } // pairs with enter()

    /// O1. `direction` is reading, writing, both or 0.
    entry enter(word direction) {
        word seen = word_.load(Atomics::relaxed); // the CAS decides
        for (;;) {
            if ((seen & closing) != 0) return entry::closed;
            if ((seen & direction) != 0) return entry::busy;
            if (word_.compare_exchange_weak(seen, (seen | direction) + user, Atomics::acquire)) // leave()
                return entry::entered; // what the last user did is visible
        }
    }

    /// O3. True: the caller must close(2).
    bool leave(word direction) {
        word const old = word_.fetch_sub(user + direction, Atomics::acq_rel); // pairs with enter(), leave()
        return (old & closing) != 0 && old - direction - closing == user;
    }

    /// D1. False: it is closed, or somebody else is closing it.
    bool begin_close() {
        word seen = word_.load(Atomics::relaxed); // the CAS decides
        for (;;) {
            if ((seen & closing) != 0) return false;
            if (word_.compare_exchange_weak(seen, (seen | closing) + user, Atomics::acq_rel)) // enter(), leave()
                return true;
        }
    }

    bool is_closing() const { return (word_.load(Atomics::acquire) & closing) != 0; } // pairs with D1

private:
    typename Atomics::template atomic<word> word_;
};

}} // namespace weft::detail
