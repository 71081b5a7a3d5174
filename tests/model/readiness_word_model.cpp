// The readiness word of the library together with its wait word, under relacy: one fiber that reads
// from a descriptor, pollers that report edges, a canceller and a timer. Labels (R1, P2, I3, ...)
// are those of readiness_word.hpp, A1 and A2 those of wait_word.hpp.

#include "schedules.hpp"

#include <weft/runtime/detail/readiness_word.hpp>
#include <weft/runtime/detail/wait_word.hpp>

namespace {

using namespace weft::model;
using weft::detail::readiness_word;
using weft::detail::wait_word;
using weft::detail::wake_reason;

/// The steps around the words that they cannot enforce. A seeded bug takes one of them back.
struct documented {
    static constexpr bool consumes_before_the_call = true; // R1
    static constexpr bool arms_before_publishing = true;   // R2, R3
    static constexpr bool repeats_the_call = true;         // R3, when it was ready
    static constexpr bool distrusts_ready = true;          // I2
    static constexpr bool withdraws = true;                // R5
    /// After a call that found nothing the next may be left out until an edge is noted (I1).
    static constexpr bool skips_hopeless_calls = true;
};

struct nobody_else {
    static constexpr unsigned others = 0;
    static constexpr bool cancels = false;
};
struct canceller_and_timer {
    static constexpr unsigned others = 2;
    static constexpr bool cancels = true;
};

/// A fiber reads `Messages` messages, each by a system call that may find nothing, as often as it
/// takes. Each of the `Pollers` delivers its share and reports the edge. A cancelled or timed out
/// wait is given up, and the next one waits on the same word, in the end for nothing but an edge. A
/// lost edge leaves the fiber waiting for good, which relacy reports as a deadlock.
template <unsigned Messages, unsigned Pollers, class Others = nobody_else,
          class Machine = as_specified, class Steps = documented>
struct reading_fiber : rl::test_suite<reading_fiber<Messages, Pollers, Others, Machine, Steps>,
                                      int(1 + Pollers + Others::others)> {
    using waiting = wait_word<relacy_atomics<>>; // its bugs are the other model's
    using claim_result = typename waiting::claim_result;
    using reference = std::uint64_t;

    readiness_word<relacy_atomics<Machine>> readable;
    waiting wait;
    modelled_atomic<unsigned, as_specified> attention{0};
    rl::semaphore<struct hand_over> resumable;

    // The kernel's buffer. Relaxed, so that the word alone makes a message visible to the reader.
    modelled_atomic<unsigned, as_specified> arrived{0};

    unsigned received = 0; // for assertions and control only: orders nothing
    bool found_nothing = false;
    bool given_up = false;
    std::uint64_t epoch = 0;
    std::uint64_t withdrawn = 0; // no reference to this wait or an earlier one may be left

    void before() { resumable.init(false, 0, 100, $); }
    void after() {
        RL_ASSERT(received == Messages);
        resumable.deinit($);
    }
    void thread(unsigned index) {
        if (index == 0) return read();
        if (index <= Pollers) return poll(index - 1);
        index == Pollers + 1 ? cancel() : expire();
    }

    // The fiber

    void read() {
        while (received != Messages)
            read_one();
    }
    void read_one() {
        for (;;) {
            bool const noted = Steps::consumes_before_the_call && readable.consume(); // R1
            bool const hopeless = found_nothing && !noted;
            if (!(Steps::skips_hopeless_calls && hopeless && rl::rand(2) != 0) &&
                system_call(noted))
                return;
            if (!Steps::consumes_before_the_call) readable.consume();

            std::uint64_t next = epoch + 1;
            if (Steps::arms_before_publishing && !begin_wait(next)) return; // R2
            bool const published = readable.publish(encode(next));          // R3
            if (!Steps::arms_before_publishing && !begin_wait(next)) return;
            if (!published && Steps::repeats_the_call) {
                found_nothing = false; // an edge was noted
                if (!wait.withdraw()) give_up(wait.reason());
                continue;
            }
            suspend();                                             // R4
            if (Steps::withdraws) readable.withdraw(encode(next)); // R5
            withdrawn = next;
            wake_reason const reason = wait.reason();
            if (reason != wake_reason::event) return give_up(reason);
        }
    }

    /// False: nothing there (EAGAIN).
    bool system_call(bool noted) {
        bool const there = arrived.load(rl::mo_relaxed) > received;
        if (!Steps::distrusts_ready && noted) RL_ASSERT(there);
        if (there) ++received;
        found_nothing = !there;
        return there;
    }

    /// A1, A2. False: cancelled; the wait is over.
    bool begin_wait(std::uint64_t expected) {
        epoch = wait.arm(Others::cancels && !given_up);
        RL_ASSERT(epoch == expected);
        if (!Others::cancels || given_up || attention.load(rl::mo_seq_cst) == 0) return true;
        give_up(wait.withdraw() ? wake_reason::cancelled : wait.reason());
        return false;
    }
    void suspend() {
        if (wait.park()) schedule();
        resumable.wait(false, false, $);
    }
    void give_up(wake_reason reason) {
        RL_ASSERT(reason == wake_reason::cancelled || reason == wake_reason::timer);
        given_up = given_up || reason == wake_reason::cancelled;
    }

    // Wakers

    void poll(unsigned self) {
        for (unsigned i = self; i < Messages; i += Pollers) {
            arrived.fetch_add(1, rl::mo_relaxed);
            reference const found = readable.signal(); // P1
            if (found == readable.nothing) continue;
            RL_ASSERT(decode(found) > withdrawn);                  // I3
            act_on(wait.claim(decode(found), wake_reason::event)); // P2
        }
    }
    void cancel() {
        attention.fetch_or(1, rl::mo_seq_cst);
        for (;;) {
            auto const seen = wait.load();
            if (!waiting::is_open(seen) || (seen & waiting::cancellable) == 0) return;
            claim_result const result = wait.claim_if(seen, wake_reason::cancelled);
            act_on(result);
            if (result != claim_result::lost) return;
        }
    }
    void expire() { act_on(wait.claim(1, wake_reason::timer)); } // of the first wait, at any time

    void act_on(claim_result result) {
        if (result == claim_result::schedule) schedule();
    }
    void schedule() {
        unsigned previous = 0;
        resumable.post(1, previous, $);
    }

    // References: the fiber's index, which is never 0 or 1, and the epoch.
    static constexpr reference index = 2;
    static constexpr unsigned index_bits = 26;
    static reference encode(std::uint64_t epoch) { return (epoch << index_bits) | index; }
    static std::uint64_t decode(reference encoded) { return encoded >> index_bits; }
};

// Seeded bugs in the steps

struct call_before_consuming : documented {
    static constexpr bool consumes_before_the_call = false;
    static constexpr bool skips_hopeless_calls = false;
};
struct published_before_armed : documented {
    static constexpr bool arms_before_publishing = false;
};
struct not_repeating_the_call : documented {
    static constexpr bool repeats_the_call = false;
};
struct ready_as_success : documented {
    static constexpr bool distrusts_ready = false;
};
struct no_withdrawal : documented {
    static constexpr bool withdraws = false;
};

template <class Machine, class Steps = documented>
using two_edges = reading_fiber<2, 1, nobody_else, Machine, Steps>;
template <class Machine, class Steps = documented>
using contested = reading_fiber<2, 1, canceller_and_timer, Machine, Steps>;

} // namespace

int main(int argument_count, char** arguments) {
    schedules checks(argument_count, arguments);

    checks.hold<reading_fiber<2, 1>>("readiness_word, two waits", 200000);
    checks.hold<reading_fiber<2, 2>>("readiness_word, two pollers", 200000);
    checks.hold<reading_fiber<2, 1, canceller_and_timer>>("readiness_word, a canceller and a timer",
                                                          300000);
    checks.hold<reading_fiber<3, 2, canceller_and_timer>>(
        "readiness_word, three waits, two pollers, a canceller and a timer", 200000);
    checks.hold_every<reading_fiber<1, 1>>("readiness_word, one wait");
    checks.hold_every<reading_fiber<2, 1>>("readiness_word, two waits");

    checks.find<two_edges<exchange_in_two_steps>>("readiness_word, signal() in two steps");
    checks.find<two_edges<compare_exchange_in_two_steps>>("readiness_word, publish() in two steps");
    checks.find<two_edges<without_acquire>>("readiness_word, nothing is acquire");
    checks.find<two_edges<without_release>>("readiness_word, nothing is release");

    checks.find<two_edges<as_specified, call_before_consuming>>(
        "readiness_word, R1 after the call");
    checks.find<two_edges<as_specified, published_before_armed>>("readiness_word, R3 before R2");
    checks.find<two_edges<as_specified, not_repeating_the_call>>(
        "readiness_word, waiting though it was ready");
    checks.find<two_edges<as_specified, ready_as_success>>("readiness_word, ready as a success");
    checks.find<contested<as_specified, no_withdrawal>>("readiness_word, without R5");

    return checks.result();
}
