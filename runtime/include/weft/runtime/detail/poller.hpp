#pragma once

#include <weft/runtime/time.hpp>

#include <memory>

namespace weft::detail {

/// How a worker learns of the kernel's events: the contract between the scheduler and io.
///
/// One poller per worker. The owner sleeps in it; another thread looks into it when the owner is kept
/// busy by a fiber. collect() and dispatch() are called by one thread at a time (the caller holds the poller's
/// lock), interrupt() by any thread.
class poller {
public:
    enum class caller : bool { owner, visitor };

    virtual ~poller() = default;

    /// Waits until there are events, but not longer (zero: only looks; duration::max(): for ever), or
    /// until interrupt(). Gives the number of events to dispatch; interruptions do not count, and a
    /// visitor leaves them for the owner.
    virtual unsigned collect(duration at_most, caller) = 0;

    /// The same wait, but the events stay where they are, to be seen by has_events() until the next
    /// collect(). Owner only.
    virtual void await(duration at_most) = 0;

    /// Wakes the fibers that wait for what collect() found.
    virtual void dispatch() noexcept = 0;

    /// Ends a collect() under way, or the next one. Any thread.
    virtual void interrupt() noexcept = 0;

    /// Whether collect() would find something now. Takes nothing away; any thread.
    virtual bool has_events() const noexcept = 0;

    /// Whether a fiber may be waiting for an event of this poller. A hint.
    virtual bool is_used() const noexcept = 0;
};

/// Defined in io. Errors: std::system_error naming what could not be had.
std::unique_ptr<poller> make_epoll_poller();

/// Where the worker that calls should register a descriptor: with the first worker that has time left, so
/// that few workers wake for events while there is little to do; they find more at once. Valid as long as
/// the run. Outside a worker null.
poller* poller_for_registration() noexcept;

} // namespace weft::detail
