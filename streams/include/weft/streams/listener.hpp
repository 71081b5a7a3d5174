#pragma once

#include <weft/io/resource.hpp>
#include <weft/runtime/detail/callable_name.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/detail/connection_gate.hpp>
#include <weft/streams/typed_attributes.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

struct serve_options;

/// What serve() does with a connection, whatever its type was: for those who implement a listener.
///
///     handler.wait_for_room(); // while there are too many connections
///     Stream accepted = ...;
///     handler.start(group, std::move(accepted));
///
/// Threads       a value; any task
/// Cancellation  both are cancellation points; start() waits only where several accept at once, and
///               cancelled it has handled the connection all the same
template <class Stream> class connection_handler {
public:
    template <class Handler>
        requires(std::invocable<std::decay_t<Handler>&, Stream> &&
                 !std::same_as<std::decay_t<Handler>, connection_handler>)
    explicit connection_handler(Handler&& handler, detail::connection_gate* gate = nullptr)
        : connection_handler(std::make_shared<std::decay_t<Handler>>(std::forward<Handler>(handler)),
                             gate) {}

    /// The handler of another kind of connection that ends in this one: `before` gets the other
    /// connection in its task, and passes what it makes of it to operator().
    template <class Other, class Before>
    connection_handler<Other> after(Before before) const {
        return connection_handler<Other>(
            name_, [inner = *this, before](Other stream) { before(std::move(stream), inner); }, gate_);
    }

    void operator()(Stream stream) const { handle_(std::move(stream)); }

    /// For a `before` that the client may let wait, a handshake say: runs it as long as the server
    /// accepts, and cancels it when it begins to drain. False: it was cut short, and nobody wants
    /// the connection any more.
    template <class Body> bool until_drained(Body body) const {
        if (gate_ != nullptr) return gate_->newcomers.run_unless_closed(std::move(body));
        body();
        return true;
    }

    void wait_for_room() const { place().wait(); }

    /// Handles the connection in a task of the group that is called like the handler.
    void start(task_group& group, Stream stream) const {
        detail::connection_place own = place();
        try {
            own.wait();
        } catch (cancelled const&) { // what was accepted is not dropped
            own.take_beyond();
            start(group, std::move(stream), std::move(own));
            throw;
        }
        start(group, std::move(stream), std::move(own));
    }

    /// For listeners that accept with a place in hand: one that is not taken yet.
    detail::connection_place place() const { return detail::connection_place(gate_); }
    /// The same with a place that is taken; never waits.
    void start(task_group& group, Stream stream, detail::connection_place own) const {
        own.announce_task();
        group.start_soon(
            task_options{.name = name_},
            [handle = handle_, own = std::move(own)](Stream accepted) mutable {
                auto const counted = own.count_this_task();
                handle(std::move(accepted));
            },
            std::move(stream));
    }

private:
    template <class Other> friend class connection_handler;

    template <class Handler>
    connection_handler(std::shared_ptr<Handler> own, detail::connection_gate* gate)
        : connection_handler(detail::callable_name(*own),
                             [own](Stream stream) { std::invoke(*own, std::move(stream)); }, gate) {}
    connection_handler(std::string name, std::function<void(Stream)> handle,
                       detail::connection_gate* gate)
        : name_(std::move(name)), handle_(std::move(handle)), gate_(gate) {}

    std::string name_;
    std::function<void(Stream)> handle_;
    detail::connection_gate* gate_;
};

/// Where connections come from.
///
/// serve() accepts for ever and gives each connection to handler(Stream) in a task of its own,
/// which owns it: in the given group, or in one of its own, whose tasks end with serve(). It ends
/// by cancellation, or when accepting fails. Implementations override serve_connections().
///
/// Threads       any task
/// Cancellation  serve() is a cancellation point; with its own group, the handlers are cancelled,
///               too
/// Errors        closed_resource_error (close() by another task) and what accepting throws; with
///               its own group those and what handlers throw, as exception_group
/// Source        AnyIO Listener
template <class Stream>
class listener : public virtual resource, public virtual typed_attribute_provider {
public:
    template <class Handler>
        requires std::invocable<std::decay_t<Handler>&, Stream>
    void serve(Handler&& handler, task_group* group = nullptr) {
        serve_with(connection_handler<Stream>(std::forward<Handler>(handler)), group);
    }

    /// serve() for those who wrap a listener.
    void serve_with(connection_handler<Stream> const& handler, task_group* group) {
        if (group != nullptr) return serve_connections(handler, *group);
        with_task_group([&](task_group& own) { serve_connections(handler, own); });
    }

protected:
    virtual void serve_connections(connection_handler<Stream> const&, task_group&) = 0;
};

struct serve_options {
    duration drain = std::chrono::seconds(10); ///< what handlers get to finish, once cancelled
    std::size_t max_connections = std::numeric_limits<std::size_t>::max();
    std::function<void(std::vector<task_info>)> on_stragglers{}; ///< empty: to standard error
};

namespace detail {
void run_server(connection_gate&, serve_options const&,
                std::function<void(task_group&)> const& accept_all);
} // namespace detail

/// A server: accepts until it is cancelled or accepting fails, then lets the handlers finish, and
/// when the time to drain is over names those left and cancels them.
///
/// Not more than max_connections are handled at a time, whatever the number of listeners; the next
/// one waits to be accepted, and is left to the next server if this one is cancelled first.
///
/// Cancellation  a cancellation point; it returns only after the last handler
/// Errors        exception_group of what accepting and handlers threw; a handler that fails cancels
///               all; std::invalid_argument (max_connections of 0)
/// Source        Trio serve_listeners
template <class Stream, class Handler>
    requires std::invocable<std::decay_t<Handler>&, Stream>
void serve(listener<Stream>& from, Handler&& handler, serve_options options = {}) {
    detail::connection_gate gate(options.max_connections);
    connection_handler<Stream> const counted(std::forward<Handler>(handler), &gate);
    detail::run_server(gate, options,
                       [&](task_group& handlers) { from.serve_with(counted, &handlers); });
}

} // namespace weft
