#include "epoll_poller.hpp"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace weft::detail {

namespace {

constexpr std::uint64_t wakeup_data =
    ~std::uint64_t(0); // no descriptor's: generations are odd there

[[noreturn]] void fail(char const* call) {
    throw std::system_error(errno, std::system_category(), call);
}

::timespec limit_of(duration at_most) noexcept {
    auto const seconds = std::chrono::duration_cast<std::chrono::seconds>(at_most);
    return {time_t(std::min<std::int64_t>(seconds.count(), 1'000'000'000)),
            long((at_most - seconds).count())};
}

// epoll_pwait2 takes nanoseconds; where the kernel lacks it, or a container's filter that is older than
// the call forbids it (EPERM), rounded up: never early.
int wait(int epoll, ::epoll_event* events, int most, duration at_most) noexcept {
    if (at_most <= duration::zero()) return ::epoll_wait(epoll, events, most, 0);
    if (at_most == duration::max()) return ::epoll_wait(epoll, events, most, -1);
    static std::atomic<bool> has_pwait2 = true;
    if (has_pwait2.load(std::memory_order_relaxed)) { // found out again at worst
        ::timespec const limit = limit_of(at_most);
        int const count = ::epoll_pwait2(epoll, events, most, &limit, nullptr);
        if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
        has_pwait2.store(false, std::memory_order_relaxed); //  "
    }
    auto const ms = std::chrono::ceil<std::chrono::milliseconds>(at_most).count();
    return ::epoll_wait(epoll, events, most, int(std::min<std::int64_t>(ms, 1 << 30)));
}

::epoll_event registration_of(io_state const& state, bool for_writing) noexcept {
    ::epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    if (for_writing) event.events |= EPOLLOUT;
    event.data.u64 = event_data_of(state);
    return event;
}

} // namespace

std::unique_ptr<poller> make_epoll_poller() {
    return std::make_unique<epoll_poller>();
}

epoll_poller::epoll_poller() {
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) fail("epoll_create1");
    wakeup_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ::epoll_event event{};
    event.events = EPOLLIN | EPOLLET; // never read: each write is an edge
    event.data.u64 = wakeup_data;
    if (wakeup_ < 0 || ::epoll_ctl(epoll_, EPOLL_CTL_ADD, wakeup_, &event) != 0) {
        int const error = errno;
        if (wakeup_ >= 0) ::close(wakeup_);
        ::close(epoll_);
        errno = error;
        fail("eventfd");
    }
}

epoll_poller::~epoll_poller() {
    forget_registrations(*this);
    ::close(wakeup_);
    ::close(epoll_);
}

unsigned epoll_poller::collect(duration at_most, caller who) {
    int const count = wait(epoll_, events_, most_events, at_most);
    count_ = 0;
    for (int number = 0; number < count; ++number) {
        if (events_[number].data.u64 != wakeup_data)
            events_[count_++] = events_[number];
        else if (interrupted_.exchange(false,
                                       std::memory_order_acq_rel) && // pairs with interrupt()
                 who == caller::visitor)
            interrupt(); // meant for the owner, who may be about to sleep
    }
    return count_;
}

void epoll_poller::await(duration at_most) {
    ::pollfd look{epoll_, POLLIN, 0};
    ::timespec const limit = limit_of(std::max(at_most, duration::zero()));
    ::ppoll(&look, 1, at_most == duration::max() ? nullptr : &limit, nullptr);
}

void epoll_poller::dispatch() noexcept {
    constexpr std::uint32_t reading = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    constexpr std::uint32_t writing = EPOLLOUT | EPOLLHUP | EPOLLERR;
    // Urgent data: reading stops in front of it although more has come.
    constexpr std::uint32_t over = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI;
    for (unsigned number = 0; number < count_; ++number) {
        io_state* const state = find_io_state(events_[number].data.u64);
        if (state == nullptr) continue; // closed meanwhile
        std::uint32_t const what = events_[number].events;
        if ((what & over) != 0)
            state->hung_up.store(true, std::memory_order_relaxed); // before signal
        if ((what & reading) != 0)
            if (auto const waiter = state->read.signal(); waiter != readiness_word<>::nothing)
                wake(wait_ref::decode(waiter), wake_reason::event);
        if ((what & writing) != 0)
            if (auto const waiter = state->write.signal(); waiter != readiness_word<>::nothing)
                wake(wait_ref::decode(waiter), wake_reason::event);
    }
    count_ = 0;
}

// One write wakes; until it has been seen, further ones would be lost on the same sleep.
void epoll_poller::interrupt() noexcept {
    if (interrupted_.exchange(true, std::memory_order_acq_rel)) return; // pairs with collect()
    std::uint64_t const one = 1;
    [[maybe_unused]] auto const written = ::write(wakeup_, &one, sizeof one);
}

bool epoll_poller::has_events() const noexcept {
    ::pollfd look{epoll_, POLLIN, 0};
    return ::poll(&look, 1, 0) > 0;
}

void epoll_poller::add(int fd, io_state& state) {
    bool const for_both = state.writing_is_awaited.load(std::memory_order_relaxed); // looked at again below
    ::epoll_event event = registration_of(state, for_both);
    registered_.fetch_add(1, std::memory_order_relaxed); // a hint; before the first event
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
        int const error = errno;
        registered_.fetch_sub(1, std::memory_order_relaxed); //  "
        throw std::system_error(error, std::system_category(), "epoll_ctl");
    }
    // Ordered by the kernel's lock of this epoll: whose change came too early has set its mark before.
    if (!for_both && state.writing_is_awaited.load(std::memory_order_seq_cst)) // register_once()
        report_writing(fd, state);
}

void epoll_poller::report_writing(int fd, io_state& state) noexcept {
    ::epoll_event event = registration_of(state, true);
    ::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event); // ENOENT: see register_once()
}

void epoll_poller::remove(int fd) noexcept {
    ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr); // fails if the number was closed: gone as well
    registered_.fetch_sub(1, std::memory_order_relaxed); // a hint
}

} // namespace weft::detail
