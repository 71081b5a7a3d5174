#pragma once

#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>

namespace weft {

/// Signals of the operating system that are sent to this process, one after the other.
///
/// While a receiver for a signal is open, in whatever run, the signal has no other effect, and
/// every receiver for it is told. A signal that comes again before it was received is received
/// once, as the kernel does it; different ones come in their order of arrival. With the last
/// receiver for a signal the previous handler returns. The signal is sent to that again if it came,
/// for the first time or again, and none of the receivers took it since: a second Ctrl-C while the
/// first one is being dealt with is not lost, and one that somebody received is not sent again.
///
///     for (int const number : weft::open_signal_receiver({SIGHUP}))
///         reload();
///
/// Threads       one task receives at a time; opened and destroyed anywhere
/// Cancellation  receive() is a cancellation point; cancelled, no signal is lost
/// Errors        busy_resource_error (a second task receives); closed_resource_error (moved from)
/// Source        AnyIO open_signal_receiver
class signal_receiver {
public:
    /// What `for (int number : receiver)` walks over; it never ends by itself.
    class iterator {
    public:
        using value_type = int;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;

        iterator() = default;
        explicit iterator(signal_receiver& from) : from_(&from) { ++*this; }

        int operator*() const { return number_; }
        iterator& operator++() {
            number_ = from_->receive();
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(iterator const&, std::default_sentinel_t) { return false; }

    private:
        signal_receiver* from_ = nullptr;
        int number_ = 0;
    };

    signal_receiver(signal_receiver&&) noexcept;
    signal_receiver& operator=(signal_receiver&&) noexcept;
    ~signal_receiver();

    /// Waits for a signal; gives its number.
    int receive();

    iterator begin() { return iterator(*this); }
    std::default_sentinel_t end() const { return {}; }

private:
    struct state;
    friend signal_receiver open_signal_receiver(std::initializer_list<int>);
    explicit signal_receiver(std::unique_ptr<state>);

    std::unique_ptr<state> state_;
};

/// From here on these signals are received. Does not wait; also outside of a task.
///
/// Errors  std::invalid_argument, naming the signal: no such number, SIGKILL and SIGSTOP, which
///         nobody can receive, and SIGSEGV, SIGBUS, SIGFPE and SIGILL, which mean that this program
///         cannot go on; std::system_error (EMFILE)
/// Source  AnyIO open_signal_receiver
signal_receiver open_signal_receiver(std::initializer_list<int> signals);

/// Waits for somebody to ask this program to end, by SIGINT (Ctrl-C) or SIGTERM; gives the number.
///
/// When it returns, these signals do again what they did before: a second Ctrl-C kills a program
/// whose shutdown takes too long.
///
///     weft::with_task_group([](weft::task_group& group) {
///         group.start_soon(serve_for_ever);
///         weft::wait_for_shutdown_signal();
///         group.cancel();
///     });
///
/// Cancellation  a cancellation point
int wait_for_shutdown_signal();

} // namespace weft
