#include <weft/io/signals.hpp>

#include <weft/io/descriptor.hpp>
#include <weft/io/detail/child_process.hpp>
#include <weft/io/detail/open_descriptor.hpp>
#include <weft/io/error.hpp>
#include <weft/runtime/detail/parking.hpp>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

// How a signal gets from the handler, where next to nothing is allowed, to the receivers.
//
//   A handler cannot take a lock. So receivers stand in slots that are never freed, in a list that
//   only grows; a receiver takes a free slot and leaves it. The handler walks the list. A receive()
//   that is still on its way out when its receiver is gone keeps the slot from the next one, whose
//   signal it would take.
//
//   handler                                     receiver that leaves
//   H1  inside += 1               (seq_cst)     L1  the old handler returns, restored |= it
//       unheard |= it                           L2  slot.wanted = 0             (seq_cst)
//   H2  slot.wanted has it?       (seq_cst)     L3  inside == 0, else look again (seq_cst)
//   H3  slot.pending |= it, write(slot.event)   L4  takes it out of unheard: sends it on
//   H4  in no slot, and restored has it:        L5  close the event's descriptor
//       takes it out of unheard, sends it on
//   H5  inside -= 1               (release)
//
// I1  No handler writes to a descriptor that is closed: one that saw `wanted` (H2) before L2 has
//     counted itself (H1) before L3 looks, and L3 waits for its H5.
//
// I2  A signal is sent on to the restored handler if, and only if, no receiver took it: `unheard`
//     is one for all of them. A receiver that takes a signal takes it out of `unheard`, the last
//     one to leave sends on what is in it, whatever may be pending in its own slot.
//
// I3  So is one whose handler the kernel had begun before L1, and which was preempted before H1 for
//     longer than L3 looks: it finds no slot any more, hence `restored` (L1, L2), and sends it on
//     itself. Who took it out of `unheard` sends, and only he. It takes `restored` along: a handler
//     of somebody else's that calls ours as its predecessor would otherwise be sent its signal for
//     ever. A receiver that opens waits, like L3, for those that may have missed its slot before it
//     takes `restored` away.
//
//   Handlers are short; L3 spins. One that interrupts the very thread that spins runs to its end
//   first.
//
//   signalfd was rejected: the signals would have to be blocked in every thread, those of other
//   libraries included, and children inherit what is blocked.

namespace weft {

namespace {

constexpr int most_signals = 64;

std::uint64_t bit_of(int number) { return std::uint64_t(1) << (number - 1); }

struct slot {
    std::atomic<unsigned> users = 0;        // the receiver, who receives; 0: free
    std::atomic<std::uint64_t> wanted = 0;  // signals, as bits
    std::atomic<std::uint64_t> pending = 0; //  "; set by the handler, taken by the receiver
    std::array<std::atomic<std::uint64_t>, most_signals> arrived{}; // the order of what is pending
    std::atomic<int> event = -1;
    slot* next = nullptr; // written before the slot is in the list
};

std::atomic<slot*> all_slots = nullptr;
std::atomic<unsigned> handlers_inside = 0;
std::atomic<std::uint64_t> arrivals = 0;
std::atomic<std::uint64_t> unheard = 0;  // signals, as bits, that have come and nobody has taken
std::atomic<std::uint64_t> restored = 0; //  ", whose old handlers took the place of ours again

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "for a signal handler");

bool tell_receivers(int number) noexcept { // false: there are none
    std::uint64_t const now = arrivals.fetch_add(1, std::memory_order_relaxed); // a number
    bool told = false;
    for (slot* each = all_slots.load(std::memory_order_acquire); // pairs with take_slot()
         each != nullptr; each = each->next) {
        if ((each->wanted.load(std::memory_order_seq_cst) & bit_of(number)) == 0) continue; // H2
        told = true;
        if ((each->pending.load(std::memory_order_relaxed) & bit_of(number)) == 0) // a hint: when
            each->arrived[std::size_t(number - 1)].store(now, std::memory_order_relaxed); //  "
        each->pending.fetch_or(bit_of(number), std::memory_order_release); // pairs with take_next()
        std::uint64_t const one = 1;
        (void)!::write(each->event.load(std::memory_order_relaxed), &one, sizeof one); // H3
    }
    return told;
}

void send_on_if_late(int number) noexcept { // H4
    std::uint64_t const it = bit_of(number);
    if ((restored.load(std::memory_order_relaxed) & it) == 0) return; // published by L2
    if ((unheard.fetch_and(~it, std::memory_order_relaxed) & it) == 0) return; // one takes it
    restored.fetch_and(~it, std::memory_order_relaxed); // only this one sends: publishes nothing
    ::kill(::getpid(), number);
}

void on_signal(int number) {
    int const saved_errno = errno;
    handlers_inside.fetch_add(1, std::memory_order_seq_cst);     // H1, pairs with L3
    unheard.fetch_or(bit_of(number), std::memory_order_relaxed); // the slot's pending publishes it
    if (!tell_receivers(number)) send_on_if_late(number);
    handlers_inside.fetch_sub(1, std::memory_order_release); // H5, pairs with L3
    errno = saved_errno;
}

void await_handlers() noexcept {
    while (handlers_inside.load(std::memory_order_seq_cst) != 0) // L3
        ::sched_yield();
}

// What was there before the first receiver of a signal, and how many receive it.
struct disposition {
    unsigned receivers = 0;
    struct ::sigaction previous {};
};

std::mutex dispositions_lock; // never held across a suspension
std::array<disposition, most_signals + 1> dispositions;

// A child of fork() has one thread, which is not in our handler (that blocks all signals), and of the
// signals that came to its parent none. It begins anew, so that its receivers work as they do in the
// parent, whether there was a run or not. Signals are blocked until then: what comes to the child
// itself comes behind it. What its receivers wait on is its own: one that reads would take its parent's
// wake-ups. fork() in somebody else's handler may find the lock taken by the very
// thread that it interrupted; POSIX does not allow it any more (2024), but _Fork(), which does not
// come here.
::sigset_t mask_before_fork; // under the lock

void before_fork() {
    ::sigset_t all;
    ::sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    dispositions_lock.lock();
    mask_before_fork = before;
}

void after_fork_here() {
    ::sigset_t const before = mask_before_fork;
    dispositions_lock.unlock();
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Without a descriptor to be had it stays the parent's.
void part_from_parent(slot& of) {
    of.pending.store(0, std::memory_order_relaxed); // there is one thread
    if (of.wanted.load(std::memory_order_relaxed) == 0) return; //  "
    int const own = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (own < 0) return;
    ::dup3(own, of.event.load(std::memory_order_relaxed), O_CLOEXEC); // one thread; the same number
    ::close(own);
}

void after_fork_there() {
    handlers_inside.store(0, std::memory_order_relaxed); // there is one thread
    unheard.store(0, std::memory_order_relaxed);         //  "
    restored.store(0, std::memory_order_relaxed);        //  "; and nobody is late
    for (slot* each = all_slots.load(std::memory_order_relaxed); each != nullptr; each = each->next) //  "
        part_from_parent(*each);
    after_fork_here();
}

// As the library is loaded: with the first receiver another thread's fork() might come in between,
// and handlers that a program has registered earlier could not use receivers.
[[maybe_unused]] int const watches_for_forks =
    ::pthread_atfork(before_fork, after_fork_here, after_fork_there);

void begin_handling(int number) { // under the lock
    disposition& of = dispositions[std::size_t(number)];
    if (of.receivers == 0) {
        if ((restored.load(std::memory_order_relaxed) & bit_of(number)) == 0) // nobody is late
            unheard.fetch_and(~bit_of(number), std::memory_order_relaxed);    // not of our time
        struct ::sigaction action {};
        action.sa_handler = on_signal;
        action.sa_flags = SA_RESTART | SA_ONSTACK; // fibers' stacks are small
        ::sigfillset(&action.sa_mask);
        if (::sigaction(number, &action, &of.previous) != 0)
            throw std::invalid_argument(detail::signal_name(number) + " cannot be received");
        await_handlers();
        restored.fetch_and(~bit_of(number), std::memory_order_relaxed); // H4 sees it, or the slot
    }
    ++of.receivers;
}

// True: it was the last one. The previous handler is there again, unless somebody else put his own in
// place of ours.
bool end_handling(int number) noexcept { // under the lock
    disposition& of = dispositions[std::size_t(number)];
    if (--of.receivers != 0) return false;
    struct ::sigaction current {};
    if (::sigaction(number, nullptr, &current) == 0 && current.sa_handler == on_signal) {
        ::sigaction(number, &of.previous, nullptr);
        restored.fetch_or(bit_of(number), std::memory_order_relaxed); // L1, published by L2
    }
    return true;
}

slot& take_slot() {
    for (slot* each = all_slots.load(std::memory_order_acquire); // pairs with the push below
         each != nullptr; each = each->next)
        if (unsigned free = 0;
            each->users.compare_exchange_strong(free, 1, std::memory_order_acquire, // leave_slot()
                                                std::memory_order_relaxed))         // the next one
            return *each;
    slot* const fresh = new slot;
    fresh->users.store(1, std::memory_order_relaxed);        // nobody else knows it
    fresh->next = all_slots.load(std::memory_order_relaxed); // the exchange checks it
    while (!all_slots.compare_exchange_weak(fresh->next, fresh,
                                            std::memory_order_release,   // pairs with on_signal()
                                            std::memory_order_relaxed)) { // tried again
    }
    return *fresh;
}

void leave_slot(slot& place) noexcept {
    place.users.fetch_sub(1, std::memory_order_release); // pairs with take_slot()
}

class slot_use {
public:
    explicit slot_use(slot& place) : place_(place) {
        place.users.fetch_add(1, std::memory_order_relaxed); // the receiver's own keeps it here
    }
    ~slot_use() { leave_slot(place_); }
    slot_use(slot_use const&) = delete;
    slot_use& operator=(slot_use const&) = delete;

private:
    slot& place_;
};

void check_can_be_received(int number) {
    if (number < 1 || number > most_signals)
        throw std::invalid_argument("there is no signal with the number " + std::to_string(number));
    for (int const refused : {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL})
        if (number == refused)
            throw std::invalid_argument(detail::signal_name(number) + " cannot be received");
}

int oldest_of(slot const& place, std::uint64_t signals) {
    int oldest = 0;
    std::uint64_t oldest_arrival = 0;
    for (; signals != 0; signals &= signals - 1) {
        int const number = std::countr_zero(signals) + 1;
        std::uint64_t const arrival =
            place.arrived[std::size_t(number - 1)].load(std::memory_order_relaxed); // take_next()
        if (oldest == 0 || arrival < oldest_arrival) {
            oldest = number;
            oldest_arrival = arrival;
        }
    }
    return oldest;
}

int take_next(slot& place) noexcept { // 0: none
    std::uint64_t const signals =
        place.pending.load(std::memory_order_acquire); // pairs with on_signal()
    if (signals == 0) return 0;
    int const number = oldest_of(place, signals);
    // All that came until now is this one (SG2): `unheard` is cleared behind `pending`, so that no
    // arrival that is coalesced with it stays there.
    place.pending.fetch_and(~bit_of(number), std::memory_order_acquire); // pairs with on_signal()
    unheard.fetch_and(~bit_of(number), std::memory_order_relaxed); // for stop(), by the lock
    return number;
}

} // namespace

struct signal_receiver::state {
    explicit state(std::initializer_list<int> signals) : place(take_slot()) {
        try {
            int const event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
            if (event < 0) throw std::system_error(errno, std::system_category(), "eventfd");
            descriptor = detail::open_descriptor(unique_fd(event));
            place.event.store(event, std::memory_order_relaxed); // `wanted` publishes it
            place.pending.store(0, std::memory_order_relaxed);   //  "
            for (int const number : signals)
                add(number);
        } catch (...) {
            leave();
            throw;
        }
    }
    ~state() { leave(); }
    state(state const&) = delete;
    state& operator=(state const&) = delete;

    void add(int number) {
        std::lock_guard const guard(dispositions_lock);
        if ((wanted & bit_of(number)) != 0) return;                             // given twice
        place.wanted.store(wanted | bit_of(number), std::memory_order_seq_cst); // pairs with H2
        try {
            begin_handling(number);
        } catch (...) {
            place.wanted.store(wanted, std::memory_order_seq_cst); // pairs with H2
            throw;
        }
        wanted |= bit_of(number);
    }

    void leave() noexcept {
        std::uint64_t const nobodys = stop();
        descriptor = {}; // L5
        leave_slot(place);
        for (std::uint64_t left = nobodys; left != 0; left &= left - 1) // for the old handler (SG4)
            ::kill(::getpid(), std::countr_zero(left) + 1);
    }

    // Gives the signals that had no other receiver left and that none has taken. All of it is under
    // the lock: a receiver that opens now begins behind it.
    std::uint64_t stop() noexcept {
        std::lock_guard const guard(dispositions_lock);
        std::uint64_t last = 0;
        for (std::uint64_t left = wanted; left != 0; left &= left - 1)
            if (int const number = std::countr_zero(left) + 1; end_handling(number))
                last |= bit_of(number);
        place.wanted.store(0, std::memory_order_seq_cst); // L2
        await_handlers();                                 // L3
        return unheard.fetch_and(~last, std::memory_order_relaxed) & last; // L4, behind L3
    }

    slot& place;
    std::uint64_t wanted = 0;
    detail::open_descriptor descriptor;
};

signal_receiver::signal_receiver(std::unique_ptr<state> opened) : state_(std::move(opened)) {}
signal_receiver::signal_receiver(signal_receiver&&) noexcept = default;
signal_receiver& signal_receiver::operator=(signal_receiver&&) noexcept = default;
signal_receiver::~signal_receiver() = default;

int signal_receiver::receive() {
    static constexpr char const* call = "signal receive";
    if (state_ == nullptr) throw closed_resource_error("the signal receiver was moved from");
    detail::descriptor_use use(state_->descriptor, detail::access::read, "receiving from");
    slot& place = state_->place;
    slot_use const held(place);
    detail::enter_blocking_call(call);
    int number = 0;
    use.retry(call, [&](int fd) -> ssize_t {
        std::uint64_t count = 0; // emptied before the look: what comes later is another event
        while (::read(fd, &count, sizeof count) < 0 && errno == EINTR) {
        }
        number = take_next(place);
        if (number != 0) return number;
        errno = EAGAIN;
        return -1;
    });
    return number;
}

signal_receiver open_signal_receiver(std::initializer_list<int> signals) {
    if (signals.size() == 0) throw std::invalid_argument("there are no signals to receive");
    for (int const number : signals)
        check_can_be_received(number);
    return signal_receiver(std::make_unique<signal_receiver::state>(signals));
}

int wait_for_shutdown_signal() { return open_signal_receiver({SIGINT, SIGTERM}).receive(); }

} // namespace weft
