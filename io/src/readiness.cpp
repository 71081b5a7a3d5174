#include <weft/io/readiness.hpp>

#include "io_state.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/parking.hpp>

#include <cerrno>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>

#include <poll.h>
#include <pthread.h>

namespace weft {

namespace {

using detail::io_state;

[[noreturn]] void fail(int error, char const* call, int fd) {
    throw std::system_error(error, std::system_category(),
                            std::string(call) + ": the descriptor " + std::to_string(fd));
}

char const* name_of_wait(short events) { return events == POLLIN ? "wait_readable" : "wait_writable"; }

bool is_ready(int fd, short events) {
    ::pollfd look{fd, events, 0};
    int const count = ::poll(&look, 1, 0);
    if (count < 0 && errno != EINTR) throw std::system_error(errno, std::system_category(), "poll");
    if (fd < 0 || (count > 0 && (look.revents & POLLNVAL) != 0)) // poll() passes over negative ones
        fail(EBADF, name_of_wait(events), fd);
    return count > 0;
}

// Who waits for descriptors that are not ours. A descriptor is registered only while somebody
// waits: its number may have another meaning the next time. An entry belongs to the table; the wait
// that is last to leave takes it out and unregisters it, under the lock, so that notify_closing()
// has nothing left behind in the kernel when it returns.
class waiting_table {
public:
    io_state& enter(detail::runtime const* run, int fd, unsigned direction) {
        std::lock_guard const guard(mutex_);
        auto& place = entries_[{fd, run}];
        if (place == nullptr) {
            place = detail::take_io_state(fd);
            if (place == nullptr) {
                entries_.erase({fd, run});
                throw std::system_error(ENOMEM, std::system_category(),
                                        direction == detail::descriptor_word<>::reading ? "wait_readable"
                                                                                        : "wait_writable");
            }
        }
        io_state& state = *place;
        if (state.users.enter(direction) != detail::descriptor_word<>::entry::entered)
            throw busy_resource_error(
                direction == detail::descriptor_word<>::reading ? "reading from" : "writing to");
        state.references.fetch_add(1, std::memory_order_relaxed); // under the lock
        return state;
    }

    void leave(detail::runtime const* run, io_state& state, unsigned direction) noexcept {
        std::lock_guard const guard(mutex_);
        state.users.leave(direction);
        // Two are the table's: those of the descriptor and of its owner.
        if (state.references.fetch_sub(1, std::memory_order_relaxed) == 3 && // under the lock
            !state.users.is_closing())
            drop(entries_.find({state.fd, run}));
        else if (state.references.load(std::memory_order_relaxed) == 2) //  "
            free(state);
    }

    /// Whether the system call would not block; if it would, the next change is an event.
    bool is_ready_else_register(io_state& state, short events) {
        std::lock_guard const guard(mutex_); // notify_closing() comes before or after all of this
        if (state.users.is_closing()) throw closed_resource_error();
        if (is_ready(state.fd, events)) return true;
        detail::register_once(state, events == POLLOUT);
        return false;
    }

    void close(int fd) noexcept {
        if (detail::is_forked_child()) return; // who waits is in the parent, and so is the registration
        std::lock_guard const guard(mutex_);
        for (auto place = entries_.lower_bound({fd, nullptr});
             place != entries_.end() && place->first.first == fd;) {
            io_state& state = *place->second;
            detail::unregister(state);
            state.users.begin_close();
            detail::wake_waiters(state, detail::wake_reason::closed); // they free it
            place = entries_.erase(place);
        }
    }

    // For fork().
    void lock() noexcept { mutex_.lock(); }
    void unlock() noexcept { mutex_.unlock(); }

private:
    using table = std::map<std::pair<int, detail::runtime const*>, io_state*>;

    void drop(table::iterator place) noexcept {
        io_state& state = *place->second;
        entries_.erase(place);
        detail::unregister(state);
        free(state);
    }
    static void free(io_state& state) noexcept {
        detail::release_io_state(state);
        detail::release_io_state(state);
    }

    std::mutex mutex_; // never held across a suspension
    table entries_;
};

// Never destroyed: destructors of static objects may wait, too.
waiting_table& waiting() {
    static auto& of_process = *new waiting_table;
    return of_process;
}

// A child of fork() that was made while there was no run may begin one, also if another thread of its parent was
// in notify_closing() at that moment. The table is empty then: who waits is in a run. As the library is loaded, so
// that no fork() comes while the table is being made.
int watch_for_forks() {
    waiting();
    detail::watch_io_states_for_forks(); // whose locks are taken under ours
    auto const unlock = [] { waiting().unlock(); };
    return ::pthread_atfork([] { waiting().lock(); }, unlock, unlock);
}

[[maybe_unused]] int const watches_for_forks = watch_for_forks();

struct waiting_place {
    waiting_place(detail::runtime const* of, int fd, unsigned way)
        : run(of), state(waiting().enter(of, fd, way)), direction(way) {}
    ~waiting_place() { waiting().leave(run, state, direction); }
    waiting_place(waiting_place const&) = delete;
    waiting_place& operator=(waiting_place const&) = delete;

    detail::runtime const* run;
    io_state& state;
    unsigned direction;
};

void wait_for(int fd, short events, unsigned direction, char const* call) {
    detail::fiber const& self = detail::require_fiber(call);
    waiting_place const place(self.runtime, fd, direction);
    detail::enter_blocking_call(call);
    io_state& state = place.state;
    detail::readiness_word<>& word =
        direction == detail::descriptor_word<>::reading ? state.read : state.write;
    for (;;) {
        word.consume();
        if (waiting().is_ready_else_register(state, events)) return;
        detail::parking wait(call);
        auto const reference = wait.reference().encode();
        if (!word.publish(reference)) {
            if (!wait.withdraw() && wait.reason() == detail::wake_reason::cancelled)
                detail::throw_cancelled(wait.owner());
            continue;
        }
        detail::wake_reason const why = wait.suspend();
        word.withdraw(reference);
        if (why == detail::wake_reason::cancelled) detail::throw_cancelled(wait.owner());
    }
}

} // namespace

void wait_readable(int fd) {
    wait_for(fd, POLLIN, detail::descriptor_word<>::reading, "wait_readable");
}
void wait_writable(int fd) {
    wait_for(fd, POLLOUT, detail::descriptor_word<>::writing, "wait_writable");
}
void wait_socket_readable(int fd) {
    wait_readable(fd);
}
void wait_socket_writable(int fd) {
    wait_writable(fd);
}
void notify_closing(int fd) {
    waiting().close(fd);
}

} // namespace weft
