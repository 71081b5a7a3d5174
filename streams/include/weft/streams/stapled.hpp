#pragma once

#include <weft/streams/byte_stream.hpp>
#include <weft/streams/listener.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <iterator>
#include <memory>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

namespace detail {

/// Whether close() was called; from any thread.
using closed_mark = std::shared_ptr<std::atomic<bool>>;
/// Errors: closed_resource_error (closed, or moved from).
void require_open(closed_mark const& closed);

/// close() of a stream made of two: marks it, closes both, then throws what the first one threw,
/// else the second. Whoever is woken by the first may destroy the stream, so who closes keeps the
/// second.
void close_both(resource& first, std::shared_ptr<resource> second, closed_mark const& closed);

/// Errors: closed_resource_error after it was moved from.
template <class Stream> Stream& half(std::shared_ptr<Stream> const& of) {
    if (!of) throw closed_resource_error();
    return *of;
}

} // namespace detail

/// A byte stream made of two, one for each direction.
///
/// send_eof() closes the sending one, unless this stream is closed. close() closes both, the sending
/// one first, also if that fails; whoever that wakes may destroy this stream, but not yet what it has
/// borrowed. Of attributes that both have, the receiving one's count.
///
/// Threads, cancellation, errors  as the two streams
/// Source                         AnyIO StapledByteStream
class stapled_byte_stream final : public byte_stream {
public:
    stapled_byte_stream(any_byte_send_stream send, any_byte_receive_stream receive)
        : send_(std::move(send)),
          receive_(std::make_shared<any_byte_receive_stream>(std::move(receive))) {}

    std::size_t receive_some(buffer target) override {
        return detail::half(receive_).receive_some(target);
    }
    void send(bytes_view data) override { send_.send(data); }
    void send(std::span<bytes_view const> parts) override { send_.send(parts); }
    void send_eof() override {
        detail::require_open(closed_);
        send_.close();
    }
    void close() override;
    attribute_map extra_attributes() const override;

private:
    any_byte_send_stream send_;
    std::shared_ptr<any_byte_receive_stream> receive_;
    detail::closed_mark closed_ = std::make_shared<std::atomic<bool>>(false);
};

/// An object stream made of two, one for each direction. Takes lvalues to borrow, rvalues and
/// unique_ptrs to own; the rest as stapled_byte_stream. Source: AnyIO StapledObjectStream
template <class T> class stapled_object_stream final : public object_stream<T> {
public:
    template <class Send, class Receive>
    stapled_object_stream(Send&& send, Receive&& receive)
        : send_(hold<object_send_stream<T>>(std::forward<Send>(send))),
          receive_(share(hold<object_receive_stream<T>>(std::forward<Receive>(receive)))),
          send_nowait_(find_send_nowait<
                       typename detail::held_type<std::remove_reference_t<Send>>::type>()) {}

    T receive() override { return detail::half(receive_).receive(); }
    void send(T item) override { send_->send(std::move(item)); }
    /// As the sending stream does it. Errors: std::logic_error (the type it was given as has no
    /// such member); whatever that throws
    void send_nowait(T item) {
        if (send_nowait_ == nullptr)
            throw std::logic_error("the stream that sends has no send_nowait()");
        send_nowait_(*send_.operator->(), std::move(item));
    }
    void send_eof() override {
        detail::require_open(closed_);
        send_->close();
    }
    void close() override {
        if (send_) detail::close_both(*send_.operator->(), receive_, closed_);
    }
    attribute_map extra_attributes() const override {
        if (!send_) return {}; // moved from
        return send_->extra_attributes().update(receive_->extra_attributes());
    }

private:
    template <class Interface, class Given>
    static detail::held_stream<Interface> hold(Given&& given) {
        if constexpr (std::is_lvalue_reference_v<Given>)
            return detail::held_stream<Interface>(given);
        else
            return detail::held_stream<Interface>(std::make_unique<Given>(std::move(given)));
    }
    template <class Interface, class Stream>
    static detail::held_stream<Interface> hold(std::unique_ptr<Stream> owned) {
        return detail::held_stream<Interface>(std::move(owned));
    }
    using receiver = object_receive_stream<T>;
    static std::shared_ptr<receiver> share(detail::held_stream<receiver> held) {
        auto const kept = std::make_shared<detail::held_stream<receiver>>(std::move(held));
        return {kept, kept->operator->()};
    }

    using nowait_call = void (*)(object_send_stream<T>&, T);
    template <class Sender> static nowait_call find_send_nowait() {
        if constexpr (requires(Sender & to, T item) { to.send_nowait(std::move(item)); })
            return [](object_send_stream<T>& to, T item) {
                dynamic_cast<Sender&>(to).send_nowait(std::move(item));
            };
        else
            return nullptr;
    }

    detail::held_stream<object_send_stream<T>> send_;
    std::shared_ptr<receiver> receive_;
    nowait_call send_nowait_;
    detail::closed_mark closed_ = std::make_shared<std::atomic<bool>>(false);
};

/// Several listeners as one. Those that are multi_listeners themselves are taken apart.
///
/// serve() serves all of them; the first that fails ends it. Of attributes that several have, the
/// last one's count.
///
/// Threads, cancellation  as listener
/// Errors                 serve(): exception_group, also with a given group; close() closes all and
///                        throws what the first one threw
/// Source                 AnyIO MultiListener
template <class Stream> class multi_listener final : public listener<Stream> {
public:
    explicit multi_listener(std::vector<std::unique_ptr<listener<Stream>>> listeners) {
        for (std::unique_ptr<listener<Stream>>& each : listeners) {
            if (!each) throw std::invalid_argument("multi_listener: a listener is null");
            auto* const several = dynamic_cast<multi_listener*>(each.get());
            if (several == nullptr)
                listeners_->push_back(std::move(each));
            else if (several->listeners_)
                std::ranges::move(*several->listeners_, std::back_inserter(*listeners_));
        }
    }

    std::span<std::unique_ptr<listener<Stream>> const> listeners() const {
        if (!listeners_) return {}; // moved from
        return *listeners_;
    }

    void close() override {
        auto const alive = listeners_; // who is woken may destroy this object at once
        std::exception_ptr first;
        for (std::unique_ptr<listener<Stream>> const& each : listeners()) {
            try {
                each->close();
            } catch (...) { // thrown when all are closed
                if (!first) first = std::current_exception();
            }
        }
        if (first) std::rethrow_exception(first);
    }

    attribute_map extra_attributes() const override {
        attribute_map all;
        for (std::unique_ptr<listener<Stream>> const& each : listeners())
            all.update(each->extra_attributes());
        return all;
    }

protected:
    void serve_connections(connection_handler<Stream> const& handler, task_group& group) override {
        auto const alive = listeners_; // who closes may destroy this object before the tasks begin
        if (!alive) throw closed_resource_error(); // moved from
        with_task_group([&](task_group& accepting) {
            for (std::unique_ptr<listener<Stream>> const& each : *alive)
                accepting.start_soon(
                    [&handler, &group, &each] { each->serve_with(handler, &group); });
        });
    }

private:
    using parts = std::vector<std::unique_ptr<listener<Stream>>>;
    std::shared_ptr<parts> listeners_ = std::make_shared<parts>();
};

} // namespace weft
