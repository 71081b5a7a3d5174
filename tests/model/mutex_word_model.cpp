// The word of the mutex under relacy, with the queue of the library: fibers that lock and unlock, the
// first of which may be cancelled, and one that looks who the owner is. Labels (L1, U2, I1, ...) are
// those of mutex_word.hpp.

#include "modelled_field.hpp"
#include "modelled_spinlock.hpp"
#include "schedules.hpp"

#include <weft/runtime/detail/fair_queue.hpp>
#include <weft/sync/detail/mutex_word.hpp>

namespace {

using namespace weft::model;
using weft::detail::fair_queue;
using weft::detail::lock_rank;
using weft::detail::mutex_word;
using weft::detail::spinlock;
using weft::detail::wait_word;
using weft::detail::wake_reason;

/// What tasks and workers are here: each task has a worker of its own, which can do nothing else.
struct alignas(8) modelled_fiber {
    wait_word<relacy_atomics<>> wait; // its bugs are another model's
    rl::semaphore<struct resumption> resumable;
    modelled_field<unsigned> state; // what others look at: set before the first lock
    bool queued = false;            // for assertions only: marked the word, and was not let in yet
    bool cancellable = false;       //  "
};

void schedule(modelled_fiber& runnable) {
    unsigned previous = 0;
    runnable.resumable.post(1, previous, $);
}

/// A wait_node.
struct modelled_node {
    template <class T> using field = modelled_field<T>;

    field<modelled_node*> next;
    field<modelled_node*> previous;
    field<modelled_fiber*> waiter;
    field<std::uint64_t> epoch;
    unsigned number = 0; // for assertions only: the place in the order of the lock
};

/// Whether the mutex is there: its last owner destroys it. Each access says so, before and after:
/// before, so that relacy sees what orders it before the end, after, since others may run in between.
class life {
public:
    life() { current() = this; }
    static void touch() { static_cast<void>(unsigned(current()->alive_)); }
    static void still_there() { RL_ASSERT(!current()->over_); }
    static void end() {
        current()->alive_.overwrite();
        current()->over_ = true;
    }

private:
    static life*& current() {
        static life* one; // one mutex for each schedule
        return one;
    }
    modelled_field<unsigned> alive_;
    bool over_ = false; // for assertions only
};

class mortal_lock {
public:
    void lock() {
        life::touch();
        lock_.lock();
        life::still_there();
    }
    void unlock() {
        life::touch();
        lock_.unlock();
        life::still_there();
    }

private:
    spinlock<lock_rank::queue, relacy_atomics<>> lock_; // its bugs are another model's
};

template <class T, class Machine> class mortal_atomic : public modelled_atomic<T, Machine> {
    using inner = modelled_atomic<T, Machine>;

public:
    mortal_atomic(T value) : inner(value) {}
    T load(rl::memory_order asked, place at = place()) const {
        life::touch();
        T const seen = inner::load(asked, at);
        life::still_there();
        return seen;
    }
    void store(T value, rl::memory_order asked, place at = place()) {
        life::touch();
        inner::store(value, asked, at);
        life::still_there();
    }
    bool compare_exchange_strong(T& seen, T next, rl::memory_order asked, place at = place()) {
        life::touch();
        bool const done = inner::compare_exchange_strong(seen, next, asked, at);
        life::still_there();
        return done;
    }
    bool compare_exchange_weak(T& seen, T next, rl::memory_order asked, place at = place()) {
        life::touch();
        bool const done = inner::compare_exchange_weak(seen, next, asked, at);
        life::still_there();
        return done;
    }
};
template <class Machine> struct mortal_atomics : relacy_atomics<Machine> {
    template <class T> using atomic = mortal_atomic<T, Machine>;
};

/// Each fiber locks, changes what the mutex protects, and unlocks; the last one that comes in
/// destroys the mutex instead, unless somebody looks. One that waits for good is reported by relacy as
/// a deadlock, two that are inside at once as a race.
template <unsigned Fibers, bool Cancels, bool Looks, class Machine = as_specified,
          template <class> class Word = mutex_word>
struct locked
    : rl::test_suite<locked<Fibers, Cancels, Looks, Machine, Word>, int(Fibers + Cancels + Looks)> {
    using queue_type = fair_queue<modelled_node, mortal_lock>;
    using word_type = Word<mortal_atomics<Machine>>;
    using value = typename word_type::value;

    life of_the_mutex;
    word_type word;
    queue_type queue;
    modelled_fiber fibers[Fibers];
    modelled_node nodes[Fibers];
    modelled_atomic<unsigned, as_specified> attention{0};
    modelled_field<unsigned> entered; // what the mutex protects

    unsigned linked = 0; // for assertions only: orders nothing
    unsigned last_served = 0;
    bool destroyed = false;

    void before() {
        for (auto& each : fibers)
            each.resumable.init(false, 0, 100, $);
    }
    void after() {
        RL_ASSERT(queue.waiters.empty());
        RL_ASSERT(destroyed || Looks);
        for (auto& each : fibers)
            each.resumable.deinit($);
    }
    void thread(unsigned index) {
        if (index < Fibers) return use(index);
        Cancels&& index == Fibers ? cancel() : look();
    }

    void use(unsigned self) {
        modelled_fiber& fiber = fibers[self];
        fiber.state = 1;
        if (!lock(self, Cancels && self == 0)) lock(self, false); // comes again, once it has left
        unsigned const before = entered;
        entered = before + 1;
        if (before + 1 == Fibers && !Looks) {
            destroyed = true;
            return life::end();
        }
        unlock(self);
    }

    // As in mutex.cpp

    bool lock(unsigned self, bool cancellable) {
        modelled_fiber& fiber = fibers[self];
        modelled_node& node = nodes[self];
        if (word.take_if_free(word_type::of(fiber))) return overtook_nobody();
        node.waiter = &fiber;
        node.epoch = fiber.wait.arm(cancellable);
        if (cancellable && attention.load(rl::mo_seq_cst) != 0) {
            fiber.wait.withdraw();
            return false;
        }
        queue.lock();
        value seen = 0;
        if (word.take_or_mark(word_type::of(fiber), seen)) {
            bool const fair = overtook_nobody();
            queue.unlock();
            fiber.wait.withdraw();
            return fair;
        }
        fiber.queued = true;
        fiber.cancellable = cancellable;
        look_into(seen);
        node.number = ++linked;
        queue.waiters.push_back(node);
        queue.unlock();
        if (fiber.wait.park()) schedule(fiber);
        fiber.resumable.wait(false, false, $);
        fiber.queued = false;
        if (fiber.wait.reason() != wake_reason::event) {
            queue.leave(node);
            return false;
        }
        RL_ASSERT(node.number > last_served); // first in, first out
        last_served = node.number;
        return true;
    }
    // I1: who takes a free mutex leaves nobody behind but one that was cancelled.
    bool overtook_nobody() {
        for (unsigned each = 0; each != Fibers; ++each)
            RL_ASSERT(!fibers[each].queued ||
                      (fibers[each].cancellable && attention.newest() != 0));
        return true;
    }
    void look_into(value seen) {
        RL_ASSERT(unsigned(word_type::template owner_in<modelled_fiber>(seen)->state) == 1);
    }
    void unlock(unsigned self) {
        value held = 0;
        if (word.let_go(word_type::of(fibers[self]), held)) return;
        RL_ASSERT(word_type::template owner_in<modelled_fiber>(held) == &fibers[self]);
        if (modelled_node* const next = word.hand_over(queue)) queue_type::deliver(*next);
    }

    void cancel() {
        attention.fetch_or(1, rl::mo_seq_cst);
        auto const seen = fibers[0].wait.load();
        using wait = wait_word<relacy_atomics<>>;
        if (!wait::is_open(seen)) return;
        if (fibers[0].wait.claim_if(seen, wake_reason::cancelled) == wait::claim_result::schedule)
            schedule(fibers[0]);
    }
    void look() {
        value const seen = word.look();
        if (seen != 0) look_into(seen);
    }
};

// Seeded bugs of the steps

/// What is rejected in mutex_word.hpp.
template <class Atomics> struct freeing_under_the_lock : mutex_word<Atomics> {
    template <class Queue> auto hand_over(Queue& queue) -> decltype(queue.claim_front()) {
        queue.lock();
        auto* const next = queue.claim_front();
        auto const others = queue.waiters.empty() ? 0 : this->contended;
        this->word_.store(next != nullptr ? this->of(*next->waiter) | others : 0, Atomics::release);
        queue.unlock();
        return next;
    }
};
template <class Atomics> struct handing_over_without_the_lock : mutex_word<Atomics> {
    template <class Queue> auto hand_over(Queue& queue) -> decltype(queue.claim_front()) {
        queue.lock();
        auto* const next = queue.claim_front();
        if (next == nullptr) {
            queue.unlock();
            return mutex_word<Atomics>::hand_over(queue);
        }
        auto const others = queue.waiters.empty() ? 0 : this->contended;
        queue.unlock();
        this->word_.store(this->of(*next->waiter) | others, Atomics::release);
        return next;
    }
};
template <class Atomics> struct forgetting_the_others : mutex_word<Atomics> {
    template <class Queue> auto hand_over(Queue& queue) -> decltype(queue.claim_front()) {
        queue.lock();
        auto* const next = queue.claim_front();
        if (next != nullptr) this->word_.store(this->of(*next->waiter), Atomics::release);
        queue.unlock();
        return next != nullptr ? next : mutex_word<Atomics>::hand_over(queue);
    }
};
template <class Atomics> struct free_in_between : mutex_word<Atomics> {
    template <class Queue> auto hand_over(Queue& queue) -> decltype(queue.claim_front()) {
        this->word_.store(0, Atomics::release);
        queue.lock();
        auto* const next = queue.claim_front();
        auto const others = queue.waiters.empty() ? 0 : this->contended;
        if (next != nullptr) this->word_.store(this->of(*next->waiter) | others, Atomics::release);
        queue.unlock();
        return next;
    }
};
template <class Atomics> struct freeing_what_may_be_marked : mutex_word<Atomics> {
    template <class Queue> auto hand_over(Queue& queue) -> decltype(queue.claim_front()) {
        queue.lock();
        auto* const next = queue.claim_front();
        auto const others = queue.waiters.empty() ? 0 : this->contended;
        if (next != nullptr) this->word_.store(this->of(*next->waiter) | others, Atomics::release);
        queue.unlock();
        if (next == nullptr) this->word_.store(0, Atomics::release); // U1 without another look
        return next;
    }
};
template <class Atomics> struct letting_go_without_looking : mutex_word<Atomics> {
    using value = typename mutex_word<Atomics>::value;
    bool let_go(value self, value& held) {
        held = this->word_.load(Atomics::relaxed);
        if (held != self) return false;
        this->word_.store(0, Atomics::release);
        return true;
    }
};
template <class Atomics> struct queueing_without_a_mark : mutex_word<Atomics> {
    using value = typename mutex_word<Atomics>::value;
    bool take_or_mark(value self, value& seen) {
        seen = this->word_.load(Atomics::acquire);
        if (seen != 0) return false;
        return this->word_.compare_exchange_strong(seen, self, Atomics::acq_rel);
    }
};
template <class Atomics> struct marking_without_comparing : mutex_word<Atomics> {
    using value = typename mutex_word<Atomics>::value;
    bool take_or_mark(value self, value& seen) {
        seen = this->word_.load(Atomics::acquire);
        if (seen == 0 && this->word_.compare_exchange_strong(seen, self, Atomics::acq_rel))
            return true;
        this->word_.store(seen | this->contended, Atomics::release);
        return false;
    }
};

// Seeded bugs of the memory orders

struct let_go_without_release : as_specified {
    static constexpr rl::memory_order of_update(rl::memory_order asked) {
        return asked == rl::mo_release ? rl::mo_relaxed : asked; // U1
    }
};
struct taken_without_release : as_specified {
    static constexpr rl::memory_order of_update(rl::memory_order asked) {
        return asked == rl::mo_acq_rel ? rl::mo_acquire : asked; // L1
    }
};
struct taken_without_acquire : as_specified {
    static constexpr rl::memory_order of_update(rl::memory_order asked) {
        return asked == rl::mo_acq_rel ? rl::mo_release : asked; // L1
    }
};
struct stored_without_release : as_specified {
    static constexpr rl::memory_order of_store(rl::memory_order) { return rl::mo_relaxed; } // U2
};
struct looked_at_without_acquire : as_specified {
    static constexpr rl::memory_order of_load(rl::memory_order) { return rl::mo_relaxed; }
};

} // namespace

int main(int argument_count, char** arguments) {
    schedules checks(argument_count, arguments);

    checks.hold<locked<3, true, false>>("mutex_word, three fibers and a canceller", 200000);
    checks.hold<locked<2, true, false>>("mutex_word, two fibers and a canceller", 200000);
    checks.hold<locked<3, true, true>>("mutex_word, three fibers, a canceller and one that looks",
                                       200000);
    checks.hold_all<locked<2, false, false>>("mutex_word, two fibers", 3);
    checks.hold_all<locked<2, true, false>>("mutex_word, two fibers and a canceller", 2);
    checks.hold_all<locked<2, false, true>>("mutex_word, two fibers and one that looks", 2);

    checks.find<locked<3, true, false, as_specified, freeing_under_the_lock>>(
        "mutex_word, freed under the lock");
    checks.find<locked<3, true, false, as_specified, handing_over_without_the_lock>>(
        "mutex_word, handed over without the lock");
    checks.find<locked<3, true, false, as_specified, forgetting_the_others>>(
        "mutex_word, handed over without the mark for those who wait on");
    checks.find<locked<3, true, false, as_specified, free_in_between>>(
        "mutex_word, free for a moment while it is handed over");
    checks.find<locked<3, true, false, as_specified, freeing_what_may_be_marked>>(
        "mutex_word, let go without another look for a mark");
    checks.find<locked<2, false, false, as_specified, letting_go_without_looking>>(
        "mutex_word, let go by a store");
    checks.find<locked<2, false, false, as_specified, queueing_without_a_mark>>(
        "mutex_word, queued without a mark");
    checks.find<locked<2, false, false, as_specified, marking_without_comparing>>(
        "mutex_word, marked by a store");

    checks.find<locked<2, false, false, compare_exchange_in_two_steps>>(
        "mutex_word, taken in two steps");
    checks.find<locked<2, false, false, let_go_without_release>>(
        "mutex_word, let go without release");
    checks.find<locked<2, false, false, taken_without_acquire>>(
        "mutex_word, taken without acquire");
    checks.find<locked<2, false, true, taken_without_release>>("mutex_word, taken without release");
    checks.find<locked<3, true, true, stored_without_release>>(
        "mutex_word, handed over without release");
    checks.find<locked<2, false, true, looked_at_without_acquire>>(
        "mutex_word, looked at without acquire");

    return checks.result();
}
