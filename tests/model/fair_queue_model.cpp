// The queue of the library under relacy, with its list, its lock and its wait words: fibers that wait,
// one that gives, one that cancels. Labels (G2, Q4, I3, ...) are those of fair_queue.hpp.

#include "modelled_field.hpp"
#include "modelled_spinlock.hpp"
#include "schedules.hpp"

#include <weft/runtime/detail/fair_queue.hpp>

namespace {

using namespace weft::model;
using weft::detail::claimed_nodes;
using weft::detail::fair_queue;
using weft::detail::lock_rank;
using weft::detail::spinlock;
using weft::detail::wait_word;
using weft::detail::wake_reason;

/// What fibers and workers are here: each fiber has a worker of its own, which can do nothing else.
struct modelled_fiber {
    wait_word<relacy_atomics<>> wait; // its bugs are the other model's
    rl::semaphore<struct resumption> resumable;
    unsigned schedules = 0; // for assertions only
};

void schedule(modelled_fiber& runnable) {
    RL_ASSERT(++runnable.schedules == 1);
    unsigned previous = 0;
    runnable.resumable.post(1, previous, $);
}

/// A wait_node, on a stack that is used for something else as soon as the waiter goes on.
struct modelled_node {
    template <class T> using field = modelled_field<T>;

    field<modelled_node*> next;
    field<modelled_node*> previous;
    field<modelled_fiber*> waiter;
    field<std::uint64_t> epoch;
    field<unsigned> payload;
    unsigned number = 0; // for assertions only: the place in the order of the lock

    void end() {
        next.overwrite(), previous.overwrite(), waiter.overwrite();
        epoch.overwrite(), payload.overwrite();
    }
};

/// The lock of the library, in a queue that somebody destroys. One queue for each schedule.
template <class Machine> class mortal_lock {
public:
    mortal_lock() { latest() = this; }
    void lock() {
        touch();
        lock_.lock();
    }
    void unlock() {
        touch();
        lock_.unlock();
    }
    static void end() { latest()->alive_.overwrite(); }

private:
    static mortal_lock*& latest() {
        static mortal_lock* one;
        return one;
    }
    void touch() { static_cast<void>(unsigned(alive_)); }

    spinlock<lock_rank::queue, relacy_atomics<Machine>> lock_;
    modelled_field<unsigned> alive_;
};

/// The steps around the queue that it cannot enforce. A seeded bug takes one of them back.
struct documented {
    static constexpr bool looks_again_under_the_lock = true;   // Q2
    static constexpr bool keeps_what_losers_left = true;       // G2, I3
    static constexpr bool gives_under_the_lock = true;         // G1 before G2
    static constexpr bool fills_before_delivering = true;      // G4, G5
    static constexpr bool claims_all_before_delivering = true; // I5
    static constexpr bool leaves_when_cancelled = true;        // Q4
    static constexpr bool leaves_under_the_lock = true;        // Q4
    static constexpr bool keeps_what_it_was_given = true;      // Q4: what counts is the reason
    static constexpr bool hands_over_first = true;             // I2
    static constexpr bool passes_only_when_settled = true;     // of the gate, see there
};

/// Things are given one by one, as many as there are fibers; each fiber takes one, or is cancelled and
/// then takes none. A thing that is lost leaves a fiber waiting for good, which relacy reports as a
/// deadlock. The first fiber is the one that may be cancelled.
template <unsigned Fibers, bool Cancels, class Machine = as_specified, class Steps = documented>
struct handed_over
    : rl::test_suite<handed_over<Fibers, Cancels, Machine, Steps>, int(Fibers + 1 + Cancels)> {
    using queue_type = fair_queue<modelled_node, mortal_lock<Machine>>;

    queue_type queue; // its state: how many things are kept
    modelled_fiber fibers[Fibers];
    modelled_node nodes[Fibers];
    modelled_atomic<unsigned, as_specified> attention{0};

    unsigned linked = 0; // for assertions only: orders nothing
    unsigned last_served = 0;
    unsigned taken = 0;
    unsigned given_up = 0;

    void before() {
        for (auto& each : fibers)
            each.resumable.init(false, 0, 100, $);
    }
    void after() {
        RL_ASSERT(taken + given_up == Fibers);
        RL_ASSERT(queue.waiters.empty());
        RL_ASSERT(unsigned(queue.state) == given_up);
        for (auto& each : fibers)
            each.resumable.deinit($);
    }
    void thread(unsigned index) {
        if (index < Fibers) return take(index);
        index == Fibers ? give_to_all() : cancel();
    }

    // A fiber

    void take(unsigned self) {
        modelled_fiber& fiber = fibers[self];
        modelled_node& node = nodes[self];
        bool const cancellable = Cancels && self == 0;
        node.waiter = &fiber;
        node.epoch = fiber.wait.arm(cancellable); // Q1
        if (cancellable && attention.load(rl::mo_seq_cst) != 0) {
            fiber.wait.withdraw();
            return leave_empty_handed(node);
        }
        queue.lock(); // Q2
        if (Steps::looks_again_under_the_lock && take_kept()) {
            queue.unlock();
            fiber.wait.withdraw(); // or a canceller was first: it finds the fiber at its next call
            return own(node);
        }
        node.number = ++linked;
        queue.waiters.push_back(node);
        queue.unlock();
        wait_on(fiber);                                  // Q3
        if (fiber.wait.reason() == wake_reason::event) { // Q4
            RL_ASSERT(unsigned(node.payload) == node.number);
            if (Steps::keeps_what_it_was_given || attention.load(rl::mo_seq_cst) == 0)
                return own(node);
            return leave_empty_handed(node);
        }
        RL_ASSERT(fiber.wait.reason() == wake_reason::cancelled && cancellable);
        if (Steps::leaves_when_cancelled) leave(node);
        leave_empty_handed(node);
    }

    bool take_kept() {
        unsigned const kept = queue.state;
        if (kept == 0) return false;
        queue.state = kept - 1;
        return true;
    }
    void wait_on(modelled_fiber& fiber) {
        if (fiber.wait.park()) schedule(fiber);
        fiber.resumable.wait(false, false, $);
    }
    void leave(modelled_node& node) {
        if (Steps::leaves_under_the_lock) return queue.leave(node);
        queue.waiters.remove(node);
    }
    void own(modelled_node& node) {
        ++taken;
        node.end();
    }
    void leave_empty_handed(modelled_node& node) {
        ++given_up;
        node.end();
    }

    // Everybody else

    void give_to_all() {
        for (unsigned i = 0; i != Fibers; ++i)
            give();
    }
    void give() {
        if (Steps::gives_under_the_lock) queue.lock();   // G1
        modelled_node* const first = choose();           // G2
        if (Steps::gives_under_the_lock) queue.unlock(); // G3
        if (first != nullptr) fill_and_deliver(*first);
    }
    modelled_node* choose() {
        modelled_node* const longest = queue.waiters.front();
        modelled_node* const first = Steps::hands_over_first ? queue.claim_front() : nullptr;
        if (first == nullptr) {
            if (Steps::keeps_what_losers_left || longest == nullptr) queue.state = queue.state + 1;
            return nullptr;
        }
        RL_ASSERT(first->number > last_served); // I4
        last_served = first->number;
        return first;
    }
    void fill_and_deliver(modelled_node& node) {
        if (Steps::fills_before_delivering) node.payload = node.number; // G4
        queue_type::deliver(node);                                      // G5
        if (!Steps::fills_before_delivering) node.payload = node.number;
    }

    void cancel() {
        attention.fetch_or(1, rl::mo_seq_cst);
        auto const seen = fibers[0].wait.load();
        using word = wait_word<relacy_atomics<>>;
        if (!word::is_open(seen)) return;
        if (fibers[0].wait.claim_if(seen, wake_reason::cancelled) == word::claim_result::schedule)
            schedule(fibers[0]);
    }
};

/// Fibers wait until a gate is opened, and the last one that comes back destroys it, perhaps while
/// the call that opened it has not returned. The first may be cancelled. The steps of `event`: in
/// `is_settled`, and only then, a fiber passes without the lock.
template <unsigned Fibers, bool Cancels, class Machine = as_specified, class Steps = documented>
struct opened_gate
    : rl::test_suite<opened_gate<Fibers, Cancels, Machine, Steps>, int(Fibers + 1 + Cancels)> {
    using lock_type = mortal_lock<Machine>;
    using queue_type = fair_queue<modelled_node, lock_type>;

    enum : unsigned { is_unset, is_set, is_settled };

    queue_type queue;
    modelled_atomic<unsigned, as_specified> word{is_unset}; // written under the lock
    modelled_fiber fibers[Fibers];
    modelled_node nodes[Fibers];
    modelled_atomic<unsigned, as_specified> attention{0};
    modelled_atomic<unsigned, as_specified> inside{Fibers};

    void before() {
        for (auto& each : fibers)
            each.resumable.init(false, 0, 100, $);
    }
    void after() {
        RL_ASSERT(inside.newest() == 0);
        for (auto& each : fibers)
            each.resumable.deinit($);
    }
    void thread(unsigned index) {
        if (index < Fibers) return pass(index);
        index == Fibers ? open() : cancel();
    }

    void pass(unsigned self) {
        modelled_fiber& fiber = fibers[self];
        modelled_node& node = nodes[self];
        bool const cancellable = Cancels && self == 0;
        node.waiter = &fiber;
        node.epoch = fiber.wait.arm(cancellable);
        bool let_through = false;
        if (passes_without_lock()) {
            fiber.wait.withdraw();
            let_through = true;
        } else if (cancellable && attention.load(rl::mo_seq_cst) != 0) {
            fiber.wait.withdraw();
        } else if (is_open_or_queue(node)) {
            fiber.wait.withdraw();
            let_through = true;
        } else {
            if (fiber.wait.park()) schedule(fiber);
            fiber.resumable.wait(false, false, $);
            let_through = fiber.wait.reason() == wake_reason::event;
            if (!let_through) queue.leave(node);
        }
        node.end();
        if (inside.fetch_sub(1, rl::mo_acq_rel) == 1 && (let_through || is_open())) end_queue();
    }
    bool passes_without_lock() {
        unsigned const seen = word.load(rl::mo_acquire);
        return seen == is_settled || (seen == is_set && !Steps::passes_only_when_settled);
    }
    bool is_open_or_queue(modelled_node& node) {
        queue.lock();
        bool const open = word.load(rl::mo_relaxed) != is_unset;
        open ? word.store(is_settled, rl::mo_release) : queue.waiters.push_back(node);
        queue.unlock();
        return open;
    }
    // Who was cancelled has not seen whether it was opened.
    bool is_open() {
        queue.lock();
        bool const open = word.load(rl::mo_relaxed) != is_unset;
        queue.unlock();
        return open;
    }
    void end_queue() { lock_type::end(); }

    void open() {
        claimed_nodes<modelled_node, lock_type> woken;
        queue.lock();
        word.store(is_set, rl::mo_release);
        if (Steps::claims_all_before_delivering) {
            woken.claim_all(queue);
        } else {
            while (modelled_node* const node = queue.claim_front())
                queue_type::deliver(*node);
        }
        queue.unlock();
        woken.deliver_all();
    }

    void cancel() {
        attention.fetch_or(1, rl::mo_seq_cst);
        auto const seen = fibers[0].wait.load();
        using word = wait_word<relacy_atomics<>>;
        if (!word::is_open(seen)) return;
        if (fibers[0].wait.claim_if(seen, wake_reason::cancelled) == word::claim_result::schedule)
            schedule(fibers[0]);
    }
};

// Seeded bugs in the steps

struct not_looking_again : documented {
    static constexpr bool looks_again_under_the_lock = false;
};
struct giving_to_losers : documented {
    static constexpr bool keeps_what_losers_left = false;
};
struct giving_without_the_lock : documented {
    static constexpr bool gives_under_the_lock = false;
};
struct delivering_before_filling : documented {
    static constexpr bool fills_before_delivering = false;
};
struct delivering_one_by_one : documented {
    static constexpr bool claims_all_before_delivering = false;
};
struct staying_when_cancelled : documented {
    static constexpr bool leaves_when_cancelled = false;
};
struct leaving_without_the_lock : documented {
    static constexpr bool leaves_under_the_lock = false;
};
struct cancelled_after_all : documented {
    static constexpr bool keeps_what_it_was_given = false;
};
struct passing_when_set : documented {
    static constexpr bool passes_only_when_settled = false;
};
struct keeping_first : documented {
    static constexpr bool hands_over_first = false;
};

} // namespace

int main(int argument_count, char** arguments) {
    schedules checks(argument_count, arguments);

    checks.hold<handed_over<3, true>>("fair_queue, three fibers and a canceller", 200000);
    checks.hold<handed_over<2, true>>("fair_queue, two fibers and a canceller", 200000);
    checks.hold_all<handed_over<2, true>>("fair_queue, two fibers and a canceller", 2);
    checks.hold_all<handed_over<1, true>>("fair_queue, a fiber and a canceller", 3);
    checks.hold<opened_gate<3, true>>("fair_queue, a gate that is destroyed", 200000);
    checks.hold_all<opened_gate<2, false>>("fair_queue, a gate that is destroyed", 2);
    checks.hold_all<opened_gate<1, true>>("fair_queue, a gate that is destroyed, and a canceller",
                                          2);

    checks.find<handed_over<2, true, exchange_in_two_steps>>(
        "fair_queue, the lock taken in two steps");
    checks.find<handed_over<2, true, without_acquire>>("fair_queue, a lock without acquire");
    checks.find<handed_over<2, true, without_release>>("fair_queue, a lock without release");

    checks.find<handed_over<2, true, as_specified, not_looking_again>>(
        "fair_queue, Q2 without another look");
    checks.find<handed_over<2, true, as_specified, giving_to_losers>>(
        "fair_queue, given to one that was cancelled");
    checks.find<handed_over<2, true, as_specified, giving_without_the_lock>>(
        "fair_queue, G2 without the lock");
    checks.find<handed_over<2, true, as_specified, delivering_before_filling>>(
        "fair_queue, delivered before it was filled");
    checks.find<handed_over<2, true, as_specified, staying_when_cancelled>>(
        "fair_queue, cancelled and still in the queue");
    checks.find<handed_over<2, true, as_specified, leaving_without_the_lock>>(
        "fair_queue, left without the lock");
    checks.find<handed_over<2, true, as_specified, cancelled_after_all>>(
        "fair_queue, given and given back to nobody");
    checks.find<handed_over<2, true, as_specified, keeping_first>>(
        "fair_queue, kept while somebody waits");
    checks.find<opened_gate<2, false, as_specified, delivering_one_by_one>>(
        "fair_queue, a gate that wakes its destroyer before it lets the lock go");
    checks.find<opened_gate<2, false, as_specified, passing_when_set>>(
        "fair_queue, a gate that is passed before the lock of who opened it was seen free");

    return checks.result();
}
