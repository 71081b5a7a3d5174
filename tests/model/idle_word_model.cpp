// The idle word of the library under relacy: workers that sleep when there is nothing to do, a
// submitter that wakes them. Labels (S1, W3, I4, ...) are those of idle_word.hpp.

#include "schedules.hpp"

#include <weft/runtime/detail/idle_word.hpp>

namespace {

using namespace weft::model;
using weft::detail::idle_word;

/// How a worker deals with the token that comes with being chosen.
enum class token {
    awaited,            // chosen, it takes the token before it goes on (I2)
    of_no_meaning,      // each return from the sleep is followed by retract(), token or not
    awaited_only_asleep // bug: chosen while it looked again, it leaves the token for the next sleep
};

/// What the last searcher does when it found something. Without a fence between stop_searching()
/// and its look at the queue it may miss what a submitter left to it.
enum class last_searcher { notifies, looks, is_silent };

/// The steps around the word that the word cannot enforce. A seeded bug takes one of them back.
struct documented {
    static constexpr bool looks_again = true;                           // W3
    static constexpr bool retracts_when_it_finds = true;                // W4
    static constexpr bool retracts_when_woken_early = true;             // I4
    static constexpr last_searcher when_last = last_searcher::notifies; // I3
    static constexpr bool fence_before_stopping = true;                 // wake(), not choose()
    static constexpr token when_chosen = token::awaited;
};

enum class items { independent, meeting };

/// A submitter pushes three items for `Workers` workers; who runs the last one stops them all. Work
/// that is queued while everybody sleeps is reported by relacy as a deadlock. Where items meet, the
/// first two end only when both have begun, so that work queued behind a busy worker while another
/// sleeps is a deadlock, too.
template <unsigned Workers, items Items = items::independent, class Machine = as_specified,
          class Steps = documented>
struct sleeping_workers
    : rl::test_suite<sleeping_workers<Workers, Items, Machine, Steps>, int(Workers + 1)> {
    static constexpr unsigned count = 3;

    idle_word<relacy_atomics<Machine>> idle;
    modelled_atomic<unsigned, as_specified> stopping{0};

    // The queue: one pushes, everybody takes. No stronger than a queue must be.
    modelled_atomic<unsigned, as_specified> head{0};
    modelled_atomic<unsigned, as_specified> tail{0};
    rl::var<unsigned> item[count];

    rl::semaphore<struct park_token> parked[Workers]; // may return without a token
    rl::semaphore<struct meeting_point> begun[2];

    unsigned done = 0; // for assertions and control only: orders nothing

    void before() {
        for (auto& each : parked)
            each.init(true, 0, 100, $);
        for (auto& each : begun)
            each.init(false, 0, 100, $);
    }
    void after() {
        RL_ASSERT(done == count);
        RL_ASSERT(!idle.any_searching());
        RL_ASSERT(!idle.any_asleep());
        for (auto& each : parked)
            each.deinit($);
        for (auto& each : begun)
            each.deinit($);
    }
    void thread(unsigned index) {
        if (index == Workers) return submit();
        work(index);
    }

    void submit() {
        for (unsigned i = 0; i != count; ++i) {
            item[i]($) = i;
            tail.store(i + 1, rl::mo_release); // S1
            wake_one();
        }
    }

    void work(unsigned self) {
        bool searching = false;
        while (stopping.load(rl::mo_acquire) == 0) {
            unsigned taken = 0;
            if (take(taken)) {
                if (searching && idle.stop_searching()) hand_on_the_search();
                searching = false;
                execute(self, taken);
            } else if (!searching && idle.try_start_searching(Workers)) {
                searching = true;
            } else {
                idle.announce_sleep(self, searching); // W1, W2
                searching = sleep(self);
            }
        }
        if (searching) idle.stop_searching();
    }

    /// W3 to W5. True: awake again, and searching.
    bool sleep(unsigned self) {
        if (Steps::looks_again && (may_have_work() || stopping.load(rl::mo_acquire) != 0)) {
            if (!Steps::retracts_when_it_finds) return false;
            if (!idle.retract(self) && Steps::when_chosen == token::awaited) await_token(self);
            return true;
        }
        bool const woken = parked[self].wait(false, false, $) == rl::sema_wakeup_reason_success;
        if (woken && Steps::when_chosen != token::of_no_meaning) return true;
        if (!Steps::retracts_when_woken_early) return true;
        if (!idle.retract(self) && Steps::when_chosen != token::of_no_meaning) await_token(self);
        return true;
    }
    void await_token(unsigned self) {
        while (parked[self].wait(false, false, $) != rl::sema_wakeup_reason_success) {
        }
    }

    bool may_have_work() { return head.load(rl::mo_acquire) < tail.load(rl::mo_acquire); }
    bool take(unsigned& taken) {
        unsigned first = head.load(rl::mo_acquire);
        while (first < tail.load(rl::mo_acquire))
            if (head.compare_exchange_weak(first, first + 1, rl::mo_acq_rel)) {
                taken = item[first]($);
                return true;
            }
        return false;
    }
    void execute(unsigned self, unsigned which) {
        if (Items == items::meeting && which < 2) {
            unsigned previous = 0;
            begun[1 - which].post(1, previous, $);
            begun[which].wait(false, false, $);
        }
        if (++done != count) return;
        stopping.store(1, rl::mo_release);
        if (Machine::full_fence == fence::none) // so that this bug is found where work is submitted
            rl::atomic_thread_fence(rl::mo_seq_cst, $);
        for (unsigned i = 0; i != Workers; ++i)
            if (i != self && (Steps::fence_before_stopping ? idle.wake(i) : idle.choose(i)))
                unpark(i);
    }

    void hand_on_the_search() { // I3
        if (Steps::when_last == last_searcher::is_silent) return;
        if (Steps::when_last != last_searcher::notifies && !may_have_work()) return;
        wake_one();
    }
    void wake_one() {
        int const chosen = idle.notify(); // S2 to S4
        if (chosen != idle.nobody) unpark(unsigned(chosen));
    }
    void unpark(unsigned worker) {
        unsigned previous = 0;
        parked[worker].post(1, previous, $); // S5
    }
};

/// Workers go to sleep and nobody wakes them: exactly one, the last, learns that all others sleep.
template <unsigned Workers, class Machine = as_specified>
struct last_one_awake : rl::test_suite<last_one_awake<Workers, Machine>, int(Workers)> {
    idle_word<relacy_atomics<Machine>> idle;
    unsigned last = 0;

    void after() {
        RL_ASSERT(last == 1);
        RL_ASSERT(!idle.all_asleep(Workers));
        RL_ASSERT(idle.any_searching());
    }
    void thread(unsigned self) {
        bool const searching = idle.try_start_searching(Workers);
        idle.announce_sleep(self, searching);
        if (idle.retract_as_last(self, Workers)) ++last;
    }
};

struct documented_dozing {
    static constexpr bool looks_twice = true;
    static constexpr bool roused_after_each_retract = true; // also at W4
};

/// A monitor dozes while all workers sleep, and must be roused by the first that does not sleep any
/// more. Where it is not, it waits for good, which relacy reports as a deadlock.
template <unsigned Workers, class Machine = as_specified, class Steps = documented_dozing>
struct dozing_monitor : rl::test_suite<dozing_monitor<Workers, Machine, Steps>, int(Workers + 2)> {
    idle_word<relacy_atomics<Machine>> idle;
    modelled_atomic<unsigned, Machine> dozes{0};
    modelled_atomic<unsigned, as_specified> work{0};
    rl::semaphore<struct park_token> parked[Workers];
    rl::semaphore<struct rousing> roused;

    void before() {
        for (auto& each : parked)
            each.init(false, 0, 100, $);
        roused.init(false, 0, 100, $);
    }
    void after() {
        RL_ASSERT(!idle.any_asleep());
        for (auto& each : parked)
            each.deinit($);
        roused.deinit($);
    }
    void thread(unsigned index) {
        if (index == Workers) return submit();
        if (index > Workers) return doze();
        sleep(index);
    }

    void submit() {
        work.store(1, rl::mo_release);
        for (unsigned i = 0; i != Workers; ++i)
            if (idle.wake(i)) post(parked[i]);
    }
    void sleep(unsigned self) {
        idle.announce_sleep(self, false);
        bool const found = work.load(rl::mo_acquire) != 0;
        if (!found) parked[self].wait(false, false, $);
        idle.retract(self);
        if (found && !Steps::roused_after_each_retract) return;
        if (dozes.load(rl::mo_seq_cst) != 0) post(roused);
    }
    void doze() {
        if (!idle.all_asleep(Workers)) return;
        dozes.store(1, rl::mo_seq_cst);
        if (Steps::looks_twice && !idle.all_asleep(Workers)) return;
        roused.wait(false, false, $);
    }

    template <class Semaphore> static void post(Semaphore& to) {
        unsigned previous = 0;
        to.post(1, previous, $);
    }
};

// Seeded bugs in the steps, and one other way to do it right

struct not_looking_again : documented {
    static constexpr bool looks_again = false;
};
struct not_retracting_when_it_finds : documented {
    static constexpr bool retracts_when_it_finds = false;
};
struct each_return_a_token : documented {
    static constexpr bool retracts_when_woken_early = false;
};
struct last_searcher_silent : documented {
    static constexpr last_searcher when_last = last_searcher::is_silent;
};
struct last_searcher_looks : documented {
    static constexpr last_searcher when_last = last_searcher::looks;
};
struct stop_without_fence : documented {
    static constexpr bool fence_before_stopping = false;
};
struct each_return_retracts : documented {
    static constexpr token when_chosen = token::of_no_meaning;
};
struct not_rousing_after_retracting : documented_dozing {
    static constexpr bool roused_after_each_retract = false;
};
struct dozing_at_first_sight : documented_dozing {
    static constexpr bool looks_twice = false;
};
struct token_left_behind : documented {
    static constexpr token when_chosen = token::awaited_only_asleep;
};

constexpr items independent = items::independent;
constexpr items meeting = items::meeting;

} // namespace

int main(int argument_count, char** arguments) {
    schedules checks(argument_count, arguments);

    checks.hold<sleeping_workers<2>>("idle_word, two workers", 200000);
    checks.hold<sleeping_workers<3>>("idle_word, three workers", 200000);
    checks.hold<sleeping_workers<2, meeting>>("idle_word, items that meet, two workers", 100000);
    checks.hold<sleeping_workers<3, meeting>>("idle_word, items that meet, three workers", 100000);
    checks.hold<sleeping_workers<2, meeting, fence_by_update>>(
        "idle_word, an update for a fence, as under ThreadSanitizer", 100000);
    checks.hold<sleeping_workers<3, meeting, as_specified, each_return_retracts>>(
        "idle_word, retracted after each return, tokens or not", 100000);
    checks.hold<sleeping_workers<2, meeting, as_specified, last_searcher_looks>>(
        "idle_word, the last searcher notifies if it sees work", 100000);
    checks.hold<last_one_awake<3>>("idle_word, the last one awake", 50000);
    checks.hold_every<last_one_awake<2>>("idle_word, the last one awake");

    checks.hold<dozing_monitor<2>>("idle_word, a monitor that dozes, two workers", 100000);
    checks.hold_all<dozing_monitor<1>>("idle_word, a monitor that dozes", 3);

    checks.find<sleeping_workers<2, independent, without_fence>>("idle_word, no full fence");
    checks.find<sleeping_workers<2, independent, fetch_add_in_two_steps>>(
        "idle_word, searching and sleeping counted in two steps");
    checks.find<sleeping_workers<3, independent, compare_exchange_in_two_steps>>(
        "idle_word, a sleeper chosen in two steps");
    checks.find<last_one_awake<2, fetch_add_in_two_steps>>(
        "idle_word, the last one awake announced in two steps");

    checks.find<sleeping_workers<2, independent, as_specified, not_looking_again>>(
        "idle_word, without W3");
    checks.find<sleeping_workers<2, independent, as_specified, not_retracting_when_it_finds>>(
        "idle_word, without W4");
    checks.find<sleeping_workers<2, independent, as_specified, each_return_a_token>>(
        "idle_word, a spurious return as a token");
    checks.find<sleeping_workers<2, independent, as_specified, token_left_behind>>(
        "idle_word, announced again before the token is taken");
    checks.find<sleeping_workers<2, meeting, as_specified, last_searcher_silent>>(
        "idle_word, the last searcher does not notify");
    checks.find<sleeping_workers<2, independent, as_specified, stop_without_fence>>(
        "idle_word, choose() to stop instead of wake()");
    checks.find<dozing_monitor<1, as_specified, not_rousing_after_retracting>>(
        "idle_word, the monitor not roused by who did not even fall asleep");
    checks.find<dozing_monitor<1, as_specified, dozing_at_first_sight>>(
        "idle_word, the monitor dozes without a second look");
    checks.find<dozing_monitor<1, without_total_order>>("idle_word, the monitor without seq_cst");

    return checks.result();
}
