// The descriptor word of the library under relacy: operations, and two fibers that close.
// Labels (O1, D2, I3, ...) are those of descriptor_word.hpp, R1 to R5 those of readiness_word.hpp.

#include "schedules.hpp"

#include <weft/runtime/detail/descriptor_word.hpp>
#include <weft/runtime/detail/readiness_word.hpp>
#include <weft/runtime/detail/wait_word.hpp>

namespace {

using namespace weft::model;
using weft::detail::descriptor_word;
using weft::detail::readiness_word;
using weft::detail::wait_word;
using weft::detail::wake_reason;

using bits = descriptor_word<relacy_atomics<>>::word;
constexpr bits reading = descriptor_word<relacy_atomics<>>::reading;
constexpr bits writing = descriptor_word<relacy_atomics<>>::writing;
constexpr bits closing = descriptor_word<relacy_atomics<>>::closing;

constexpr unsigned closers = 2;

/// The steps around the word that the word cannot enforce. A seeded bug takes one of them back.
struct documented {
    static constexpr bool last_one_out_closes = true;    // O3
    static constexpr bool closer_waits_for_users = true; // D3
    static constexpr bool uses_number_only_inside = true;
};

/// One thread for each of the `Directions`, which enters twice, and two that close.
template <class Atomics, class Steps, bits... Directions>
struct used_descriptor : rl::test_suite<used_descriptor<Atomics, Steps, Directions...>,
                                        int(sizeof...(Directions) + closers)> {
    using word = descriptor_word<Atomics>;

    word descriptor;

    // What the kernel knows by the number: close(2) writes, all other system calls read. So an
    // operation that close(2) does not wait for is a data race.
    rl::var<unsigned> number;
    rl::var<unsigned> position[2]; // of the one reader and the one writer

    unsigned inside = 0; // for assertions only: orders nothing
    unsigned inside_guarded[2];
    bool about_to_close = false;
    bool begun_to_close = false;
    unsigned closed = 0;

    void before() {
        number($) = 0;
        position[0]($) = position[1]($) = 0;
        inside_guarded[0] = inside_guarded[1] = 0;
        RL_ASSERT(descriptor.enter(0) == word::entry::closed);
        descriptor.open();
    }
    void after() {
        RL_ASSERT(closed == 1);
        RL_ASSERT(descriptor.is_closing());
    }
    void thread(unsigned index) {
        constexpr bits directions[] = {Directions...};
        if (index < closers) return close();
        operate(directions[index - closers]);
        operate(directions[index - closers]);
    }

    void operate(bits direction) {
        switch (descriptor.enter(direction)) { // O1
        case word::entry::closed: RL_ASSERT(about_to_close); return;
        case word::entry::busy: RL_ASSERT(direction != 0); return;
        case word::entry::entered: break;
        }
        RL_ASSERT(!begun_to_close); // I2
        ++inside;
        for_each_guarded(direction, [this](unsigned i) {
            RL_ASSERT(++inside_guarded[i] == 1); // I3
            position[i]($) = position[i]($) + 1;
        });
        if (Steps::uses_number_only_inside) use_number(); // O2
        for_each_guarded(direction, [this](unsigned i) { --inside_guarded[i]; });
        --inside;
        bool const last = descriptor.leave(direction); // O3
        if (!Steps::uses_number_only_inside) use_number();
        if (last && Steps::last_one_out_closes) close_number();
    }
    void close() {
        about_to_close = true;
        if (!descriptor.begin_close()) return; // D1
        RL_ASSERT(!begun_to_close);
        begun_to_close = true;
        if (descriptor.leave(0) || !Steps::closer_waits_for_users) close_number(); // D3
    }

    void use_number() { RL_ASSERT(number($) == 0); }
    void close_number() {
        RL_ASSERT(++closed == 1); // I1
        RL_ASSERT(inside == 0);
        number($) = 1;
    }
    template <class Visit> static void for_each_guarded(bits direction, Visit visit) {
        if ((direction & reading) != 0) visit(0);
        if ((direction & writing) != 0) visit(1);
    }
};

/// How an operation that waits, and close, find each other: not in the word, but it depends on it.
struct documented_waiting {
    static constexpr bool looks_at_closing = true; // after each R1
    static constexpr bool consumes_before_looking = true;
    static constexpr bool closing_before_waking = true; // D1, D2
};

/// A reader waits for data that never comes; only close ends its wait. One that is not ended leaves
/// the reader waiting for good, which relacy reports as a deadlock.
template <class Machine = as_specified, class Steps = documented_waiting>
struct closed_under_reader : rl::test_suite<closed_under_reader<Machine, Steps>, int(1 + closers)> {
    using word = descriptor_word<relacy_atomics<Machine>>;
    using waiting = wait_word<relacy_atomics<>>;
    using reference = std::uint64_t;

    word descriptor;
    readiness_word<relacy_atomics<Machine>> readable;
    waiting wait;
    rl::semaphore<struct hand_over> resumable;
    rl::var<unsigned> number;
    unsigned closed = 0; // for assertions only: orders nothing

    void before() {
        number($) = 0;
        resumable.init(false, 0, 100, $);
        descriptor.open();
    }
    void after() {
        RL_ASSERT(closed == 1);
        resumable.deinit($);
    }
    void thread(unsigned index) { index < closers ? close() : read(); }

    void read() {
        if (descriptor.enter(reading) != word::entry::entered) return;
        while (wait_for_edge()) {
        }
        if (descriptor.leave(reading)) close_number();
    }
    /// False: the descriptor is being closed.
    bool wait_for_edge() {
        bool const closing_before = Steps::looks_at_closing && descriptor.is_closing();
        readable.consume(); // R1
        if (Steps::consumes_before_looking ? Steps::looks_at_closing && descriptor.is_closing()
                                           : closing_before)
            return false;
        RL_ASSERT(number($) == 0);                   // EAGAIN
        std::uint64_t const epoch = wait.arm(false); // R2
        if (!readable.publish(encode(epoch))) {      // R3
            RL_ASSERT(wait.withdraw());
            return true;
        }
        if (wait.park()) schedule(); // R4
        resumable.wait(false, false, $);
        readable.withdraw(encode(epoch)); // R5
        RL_ASSERT(wait.reason() == wake_reason::closed);
        return false;
    }

    void close() {
        if (!Steps::closing_before_waking) wake();
        if (!descriptor.begin_close()) return;    // D1
        if (Steps::closing_before_waking) wake(); // D2
        if (descriptor.leave(0)) close_number();  // D3
    }
    void wake() {
        reference const found = readable.signal();
        if (found == readable.nothing) return;
        if (wait.claim(decode(found), wake_reason::closed) == waiting::claim_result::schedule)
            schedule();
    }

    void schedule() {
        unsigned previous = 0;
        resumable.post(1, previous, $);
    }
    void close_number() {
        RL_ASSERT(++closed == 1);
        number($) = 1;
    }

    // References: the fiber's index, which is never 0 or 1, and the epoch.
    static constexpr reference index = 2;
    static constexpr unsigned index_bits = 26;
    static reference encode(std::uint64_t epoch) { return (epoch << index_bits) | index; }
    static std::uint64_t decode(reference encoded) { return encoded >> index_bits; }
};

// Seeded bugs

/// D1 as two updates: closing is set before the one who closes is counted as a user.
struct closing_in_two_steps : relacy_atomics<> {
    template <class T> class atomic : public modelled_atomic<T, as_specified> {
        using whole = modelled_atomic<T, as_specified>;

    public:
        using whole::whole;

        bool compare_exchange_weak(T& seen, T next, rl::memory_order asked, place at = place()) {
            if ((seen & closing) != 0 || (next & closing) == 0)
                return whole::compare_exchange_weak(seen, next, asked, at);
            if (!whole::compare_exchange_weak(seen, seen | closing, asked, at)) return false;
            this->fetch_add(next - (seen | closing), asked, at);
            return true;
        }
    };
};

struct nobody_closes : documented {
    static constexpr bool last_one_out_closes = false;
};
struct closer_in_a_hurry : documented {
    static constexpr bool closer_waits_for_users = false;
};
struct number_after_leave : documented {
    static constexpr bool uses_number_only_inside = false;
};
struct not_looking_at_closing : documented_waiting {
    static constexpr bool looks_at_closing = false;
};
struct looking_before_consuming : documented_waiting {
    static constexpr bool consumes_before_looking = false;
};
struct waking_before_closing : documented_waiting {
    static constexpr bool closing_before_waking = false;
};

template <class Atomics = relacy_atomics<>, class Steps = documented>
using reader_and_writer = used_descriptor<Atomics, Steps, reading, writing>;
template <class Atomics = relacy_atomics<>, class Steps = documented>
using two_readers = used_descriptor<Atomics, Steps, reading, reading>;
using everybody =
    used_descriptor<relacy_atomics<>, documented, reading, writing, reading | writing, 0>;
using one_reader = used_descriptor<relacy_atomics<>, documented, reading>;

} // namespace

int main(int argument_count, char** arguments) {
    schedules checks(argument_count, arguments);

    checks.hold<reader_and_writer<>>("descriptor_word, a reader and a writer", 200000);
    checks.hold<two_readers<>>("descriptor_word, two readers", 200000);
    checks.hold<everybody>("descriptor_word, all kinds of operations", 200000);
    checks.hold_all<reader_and_writer<>>("descriptor_word, a reader and a writer", 2);
    checks.hold<closed_under_reader<>>("descriptor_word, closed under a waiting reader", 200000);

    checks.find<reader_and_writer<relacy_atomics<fetch_add_in_two_steps>>>(
        "descriptor_word, leave() in two steps");
    checks.find<two_readers<relacy_atomics<compare_exchange_in_two_steps>>>(
        "descriptor_word, enter() in two steps");
    checks.find<reader_and_writer<closing_in_two_steps>>("descriptor_word, D1 in two steps");
    checks.find<two_readers<relacy_atomics<without_acquire>>>(
        "descriptor_word, nothing is acquire");
    checks.find<two_readers<relacy_atomics<without_release>>>(
        "descriptor_word, nothing is release");

    checks.find<reader_and_writer<relacy_atomics<>, nobody_closes>>(
        "descriptor_word, the last one out does not close");
    checks.find<reader_and_writer<relacy_atomics<>, closer_in_a_hurry>>(
        "descriptor_word, closed while operations are inside");
    checks.find<reader_and_writer<relacy_atomics<>, number_after_leave>>(
        "descriptor_word, the number used after leave()");
    checks.find<closed_under_reader<as_specified, not_looking_at_closing>>(
        "descriptor_word, waiting without a look at closing");
    checks.find<closed_under_reader<as_specified, looking_before_consuming>>(
        "descriptor_word, a look at closing before R1");
    checks.find<closed_under_reader<as_specified, waking_before_closing>>(
        "descriptor_word, D2 before D1");

    return checks.result();
}
