// The wait word of the library under relacy: a fiber that waits, on two workers, and everybody who
// may end its wait. Labels (A1, C2, I3, ...) are those of wait_word.hpp.

#include "schedules.hpp"

#include <weft/runtime/detail/wait_word.hpp>

namespace {

using namespace weft::model;
using weft::detail::wait_word;
using weft::detail::wake_reason;

enum class look { after_arming, before_arming, never };

/// The steps around the word that the word cannot enforce. A seeded bug takes one of them back.
struct documented {
    static constexpr look at_attention = look::after_arming; // A2
    static constexpr bool withdraws = true;                  // what came before A3 ends the wait
    static constexpr bool switches_before_parking = true;    // A5
    static constexpr bool looks_at_delivered = true;         // A6
    static constexpr bool fills_before_delivering = true;    // C3, C4
    static constexpr bool timer_knows_its_epoch = true;      // C1
    static constexpr bool holds_to_look = true;              // L1
    static constexpr bool looks_what_came = true;            // L2
};

enum class waker { event_with_payload, event, timer, canceller, looker };

template <unsigned Waits, waker... Kinds> struct woken_by {
    static constexpr unsigned waits = Waits;
    static constexpr unsigned wakers = sizeof...(Kinds);
    static constexpr waker at(unsigned i) {
        constexpr waker kinds[] = {Kinds...};
        return kinds[i];
    }
};

/// A fiber waits `waits` times and the wakers end its waits. The first two threads are the workers
/// it runs on: after each switch it goes on on the other one, as soon as it is scheduled. A wait
/// that is never ended leaves a worker waiting for good, which relacy reports as a deadlock.
template <class Wakers, class Machine = as_specified, class Steps = documented>
struct waiting_fiber
    : rl::test_suite<waiting_fiber<Wakers, Machine, Steps>, int(2 + Wakers::wakers)> {
    using word = wait_word<relacy_atomics<Machine>>;
    using claim_result = typename word::claim_result;

    static constexpr unsigned waits = Wakers::waits;

    word wait;
    modelled_atomic<unsigned, Machine> attention{0};

    // What an event and its waiter meet in. It stands for a queue with a lock, so it never fails.
    enum : unsigned { nothing, published, happened, left };
    modelled_atomic<unsigned, as_specified> slot[waits];

    rl::var<unsigned> stack;   // all that the fiber touches while it runs
    rl::var<unsigned> payload; // in the node on its stack, in the same place for each wait
    rl::semaphore<struct hand_over> resumable[waits]; // one for each switch and nothing else

    // For assertions and for control only. Relacy runs everything in one thread of the system and
    // changes between its own only at an operation, so these order nothing.
    wake_reason winner[waits];
    unsigned schedules[waits];
    bool switched[waits];
    unsigned wait_of_switch[waits];
    unsigned switches = 0;
    unsigned ended = 0;
    bool cancelled = false;
    bool uncancellable[waits];
    bool filled[waits];
    bool ended_by_itself[waits];
    bool finished = false;

    void before() {
        stack($) = 0;
        payload($) = 0;
        for (unsigned i = 0; i != waits; ++i) {
            slot[i].store(nothing, rl::mo_relaxed);
            resumable[i].init(false, 0, 100, $);
            winner[i] = wake_reason::none;
            schedules[i] = 0;
            switched[i] = uncancellable[i] = filled[i] = ended_by_itself[i] = false;
        }
    }
    void after() {
        RL_ASSERT(ended == waits);
        for (auto& each : resumable)
            each.deinit($);
    }
    void thread(unsigned index) {
        if (index < 2) return work(index);
        switch (Wakers::at(index - 2)) {
        case waker::event_with_payload:
        case waker::event: return cause_events(Wakers::at(index - 2) == waker::event_with_payload);
        case waker::timer: return expire();
        case waker::canceller: return cancel();
        case waker::looker: return look_at_stack();
        }
    }

    // Workers

    void work(unsigned worker) {
        if (worker == 0) run(0);
        for (unsigned i = 1 - worker; i < waits; i += 2) {
            resumable[i].wait(false, false, $);
            if (finished) return;
            end_wait(wait_of_switch[i]);
            run(wait_of_switch[i] + 1);
        }
    }

    /// The fiber, until it switches away or ends.
    void run(unsigned from) {
        for (unsigned i = from; i != waits; ++i) {
            if (begin_wait(i)) return;
            end_wait(i);
        }
        finished = true;
        for (unsigned i = switches; i != waits; ++i)
            post(i); // releases the other worker
    }

    /// False: the wait ended without a switch.
    bool begin_wait(unsigned i) {
        stack($) = i;
        payload($) = 0;
        uncancellable[i] = cancelled; // whoever was cancelled once cleans up
        bool const attention_before = Steps::at_attention == look::before_arming && is_cancelled();

        RL_ASSERT(wait.arm(!uncancellable[i]) == epoch_of(i)); // A1
        if (!uncancellable[i] &&
            (attention_before || (Steps::at_attention == look::after_arming && is_cancelled()))) {
            end_it_myself(i, wake_reason::cancelled); // A2
            return false;
        }
        unsigned seen = nothing; // A3
        if (!slot[i].compare_exchange_strong(seen, published, rl::mo_acq_rel)) {
            end_it_myself(i, wake_reason::event);
            return false;
        }
        if (rl::rand(2) != 0 && wait.is_delivered()) return false; // A4, which may be left out

        wait_of_switch[switches++] = i; // A5
        switched[i] = true;
        if (Steps::switches_before_parking) stack($) = i;
        bool const delivered = wait.park();
        if (!Steps::switches_before_parking) stack($) = i;
        if (delivered && Steps::looks_at_delivered) schedule(i); // A6
        return true;
    }

    bool is_cancelled() { return attention.load(rl::mo_seq_cst) != 0; }

    /// Nobody who has a payload knows of the wait yet: who was first has also delivered.
    void end_it_myself(unsigned i, wake_reason reason) {
        if (Steps::withdraws && !wait.withdraw()) return;
        won(i, reason);
        ended_by_itself[i] = true;
    }

    void end_wait(unsigned i) {
        stack($) = i;
        wake_reason const reason = winner[i];
        // First of all: being resumed, or A4, must be enough to see the payload.
        if (reason == wake_reason::event && filled[i]) RL_ASSERT(payload($) == epoch_of(i));
        unsigned seen = published;
        slot[i].compare_exchange_strong(seen, left, rl::mo_acq_rel);

        RL_ASSERT(reason != wake_reason::none);
        if (!ended_by_itself[i]) RL_ASSERT(wait.reason() == reason);
        RL_ASSERT(schedules[i] == (switched[i] ? 1 : 0));
        RL_ASSERT(reason != wake_reason::cancelled || !uncancellable[i]);
        cancelled = cancelled || reason == wake_reason::cancelled;
        ++ended;
    }

    // Wakers

    void cause_events(bool with_payload) {
        for (unsigned i = 0; i != waits; ++i) {
            if (slot[i].exchange(happened, rl::mo_acq_rel) != published) continue;
            if (!with_payload) {
                act_on(wait.claim(epoch_of(i), wake_reason::event), i, wake_reason::event);
            } else if (Steps::fills_before_delivering) {
                claim_result const result = wait.claim_to_fill(epoch_of(i), wake_reason::event);
                if (result == claim_result::lost) continue;
                won(i, wake_reason::event);
                filled[i] = true;
                payload($) = epoch_of(i); // C3
                if (wait.deliver()) schedule(i);
            } else {
                claim_result const result = wait.claim(epoch_of(i), wake_reason::event);
                if (result == claim_result::lost) continue;
                filled[i] = true;
                act_on(result, i, wake_reason::event);
                payload($) = epoch_of(i);
            }
        }
    }

    /// A timer for each wait that does not care whether that wait has begun or is over.
    void expire() {
        for (unsigned i = 0; i != waits; ++i) {
            std::uint64_t const epoch =
                Steps::timer_knows_its_epoch ? epoch_of(i) : word::epoch_of(wait.load());
            act_on(wait.claim(epoch, wake_reason::timer), i, wake_reason::timer);
        }
    }

    void cancel() {
        attention.fetch_or(1, rl::mo_seq_cst);
        auto const seen = wait.load();
        if (!word::is_open(seen)) return;
        act_on(wait.claim_if(seen, wake_reason::cancelled), unsigned(word::epoch_of(seen)) - 1,
               wake_reason::cancelled);
    }

    /// Ends nothing, but what it reads must stay as the fiber has left it.
    void look_at_stack() {
        for (unsigned times = 0; times != waits; ++times) {
            if (Steps::holds_to_look ? !wait.hold() : !word::is_open(wait.load())) continue; // L1
            unsigned const i = unsigned(word::epoch_of(wait.load())) - 1;
            RL_ASSERT(stack($) == i);
            if (!Steps::holds_to_look) continue;
            if (wait.park() && Steps::looks_what_came) schedule(i); // L2
        }
    }

    // Everybody

    static std::uint64_t epoch_of(unsigned i) { return i + 1; }

    void act_on(claim_result result, unsigned i, wake_reason reason) {
        if (result != claim_result::lost) won(i, reason);
        if (result == claim_result::schedule) schedule(i);
    }
    void won(unsigned i, wake_reason reason) {
        RL_ASSERT(winner[i] == wake_reason::none); // I1
        winner[i] = reason;
    }
    void schedule(unsigned i) {
        RL_ASSERT(switched[i]);         // I3; that it left the stack, the accesses to `stack` show
        RL_ASSERT(++schedules[i] == 1); // I2
        for (unsigned k = 0; k != switches; ++k)
            if (wait_of_switch[k] == i) return post(k);
    }
    void post(unsigned i) {
        unsigned previous = 0;
        resumable[i].post(1, previous, $);
    }
};

// Seeded bugs in the steps

struct attention_before_arming : documented {
    static constexpr look at_attention = look::before_arming;
};
struct no_look_at_attention : documented {
    static constexpr look at_attention = look::never;
};
struct no_withdrawal : documented {
    static constexpr bool withdraws = false;
};
struct parking_on_the_stack : documented {
    static constexpr bool switches_before_parking = false;
};
struct ignoring_delivered : documented {
    static constexpr bool looks_at_delivered = false;
};
struct delivering_before_filling : documented {
    static constexpr bool fills_before_delivering = false;
};
struct timer_for_any_epoch : documented {
    static constexpr bool timer_knows_its_epoch = false;
};

struct looking_without_holding : documented {
    static constexpr bool holds_to_look = false;
};
struct letting_go_blindly : documented {
    static constexpr bool looks_what_came = false;
};

using everybody = woken_by<2, waker::event_with_payload, waker::timer, waker::canceller>;
using event_or_canceller = woken_by<1, waker::event_with_payload, waker::canceller>;
using only_canceller = woken_by<1, waker::canceller>;
using only_event = woken_by<1, waker::event>;
using only_payload = woken_by<1, waker::event_with_payload>;
using payload_and_looker = woken_by<1, waker::event_with_payload, waker::looker>;
using canceller_and_looker = woken_by<1, waker::canceller, waker::looker>;
using two_lookers = woken_by<1, waker::event, waker::looker, waker::looker>;
using looked_at_by_everybody =
    woken_by<2, waker::event_with_payload, waker::timer, waker::canceller, waker::looker>;

} // namespace

int main(int argument_count, char** arguments) {
    schedules checks(argument_count, arguments);

    checks.hold<waiting_fiber<everybody>>("wait_word", 500000);
    checks.hold_every<waiting_fiber<only_canceller>>("wait_word, only a canceller");
    checks.hold_every<waiting_fiber<only_event>>("wait_word, only an event");
    checks.hold_every<waiting_fiber<only_payload>>("wait_word, only an event with payload");
    checks.hold_all<waiting_fiber<event_or_canceller>>("wait_word, an event and a canceller", 3);
    checks.hold_all<waiting_fiber<everybody>>("wait_word", 1);
    checks.hold<waiting_fiber<looked_at_by_everybody>>("wait_word, somebody looks", 100000);
    checks.hold_all<waiting_fiber<payload_and_looker>>("wait_word, a payload and a look", 2);
    checks.hold_all<waiting_fiber<canceller_and_looker>>("wait_word, a canceller and a look", 2);
    checks.hold_all<waiting_fiber<two_lookers>>("wait_word, two look", 1);

    checks.find<waiting_fiber<only_canceller, exchange_as_a_release_store>>(
        "wait_word, arm() as a release store");
    checks.find<waiting_fiber<only_canceller, without_total_order>>(
        "wait_word, no order is seq_cst");
    checks.find<waiting_fiber<only_payload, fetch_add_in_two_steps>>(
        "wait_word, park() in two steps");
    checks.find<waiting_fiber<only_payload, fetch_or_in_two_steps>>(
        "wait_word, deliver() in two steps");
    checks.find<waiting_fiber<everybody, compare_exchange_in_two_steps>>(
        "wait_word, the claim in two steps");
    checks.find<waiting_fiber<everybody, without_acquire>>("wait_word, nothing is acquire");
    checks.find<waiting_fiber<everybody, without_release>>("wait_word, nothing is release");

    checks.find<waiting_fiber<only_canceller, as_specified, attention_before_arming>>(
        "wait_word, A2 before A1");
    checks.find<waiting_fiber<only_canceller, as_specified, no_look_at_attention>>(
        "wait_word, without A2");
    checks.find<waiting_fiber<everybody, as_specified, no_withdrawal>>(
        "wait_word, not withdrawn by who ends the wait itself");
    checks.find<waiting_fiber<only_event, as_specified, parking_on_the_stack>>(
        "wait_word, parked before the switch");
    checks.find<waiting_fiber<only_event, as_specified, ignoring_delivered>>(
        "wait_word, without A6");
    checks.find<waiting_fiber<only_payload, as_specified, delivering_before_filling>>(
        "wait_word, delivered before the payload is written");
    checks.find<waiting_fiber<everybody, as_specified, timer_for_any_epoch>>(
        "wait_word, a timer that ends any wait");

    checks.find<waiting_fiber<payload_and_looker, as_specified, looking_without_holding>>(
        "wait_word, a look without L1");
    checks.find<waiting_fiber<payload_and_looker, as_specified, letting_go_blindly>>(
        "wait_word, L2 without a look at delivered");

    return checks.result();
}
