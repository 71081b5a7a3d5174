#pragma once

#include <weft/streams/detail/memory_channel.hpp>
#include <weft/streams/object_stream.hpp>

#include <memory>
#include <optional>
#include <utility>

namespace weft {

template <class T> struct memory_object_stream;
template <class T>
memory_object_stream<T> create_memory_object_stream(double max_buffer_size = 0);

/// The end of a memory object stream that objects go into. Clones share what they send to; each
/// counts until it is closed or destroyed, and when the last one is, the receivers see the end.
///
/// send() returns when a receiver took the object or the buffer has room for it; senders that wait
/// are served in order. Closing a clone wakes those that wait through it, their objects stay
/// unsent. Objects are moved under the stream's lock: a move constructor must not wait, nor use the
/// stream.
///
/// Threads       any: send() needs a task, the rest never waits and may come from OS threads
/// Cancellation  send() is a cancellation point; cancelled, nothing was sent
/// Errors        closed_resource_error (this clone); broken_resource_error (nobody can receive);
///               would_block (send_nowait(); try_send() gives false and leaves the object alone)
/// Source        AnyIO MemoryObjectSendStream
template <class T> class memory_object_send_stream final : public object_send_stream<T> {
public:
    memory_object_send_stream(memory_object_send_stream&& other) noexcept
        : channel_(std::move(other.channel_)), end_(other.end_) {}
    memory_object_send_stream& operator=(memory_object_send_stream&& other) noexcept {
        if (this == &other) return *this;
        close_now();
        channel_ = std::move(other.channel_);
        end_ = other.end_;
        return *this;
    }
    ~memory_object_send_stream() override { close_now(); }

    void send(T item) override {
        auto&& carried = detail::carrier<T>::wrap(item);
        channel().send(end_, carried);
    }
    void send_nowait(T item) {
        auto&& carried = detail::carrier<T>::wrap(item);
        channel().sent(channel().put(end_, carried, nullptr));
    }
    bool try_send(T& item) {
        auto&& carried = detail::carrier<T>::lend(item);
        auto answer = detail::channel_answer::would_block;
        try {
            answer = channel().put(end_, carried, nullptr);
        } catch (...) { // no memory
            detail::carrier<T>::take_back(carried, item);
            throw;
        }
        if (answer == detail::channel_answer::done) return true;
        detail::carrier<T>::take_back(carried, item);
        if (answer != detail::channel_answer::would_block) channel().sent(answer);
        return false;
    }

    memory_object_send_stream clone() const {
        return memory_object_send_stream(channel_ptr(), &end_);
    }
    void close() override { close_now(); }
    memory_object_stream_statistics statistics() const { return channel().statistics(); }

private:
    friend memory_object_stream<T> create_memory_object_stream<T>(double);

    memory_object_send_stream(std::shared_ptr<detail::memory_channel<T>> to,
                              detail::channel_end const* like)
        : channel_(std::move(to)), end_(channel_->open_sender(like)) {}

    std::shared_ptr<detail::memory_channel<T>> const& channel_ptr() const {
        if (!channel_) detail::throw_channel_closed(); // moved from
        return channel_;
    }
    detail::memory_channel<T>& channel() const { return *channel_ptr(); }
    void close_now() noexcept {
        if (channel_) channel_->close_sender(end_);
    }

    std::shared_ptr<detail::memory_channel<T>> channel_;
    detail::channel_end end_;
};

/// The end of a memory object stream that objects come out of, in the order in which they were
/// sent. Clones compete for them; each counts until it is closed or destroyed, and when the last
/// one is, the senders get broken_resource_error.
///
/// Receivers that wait are served in order; one that is cancelled is passed over, and no object is
/// lost. One whose move constructor throws while it is given to the caller is: it had left the
/// stream. Closing a clone wakes those that wait through it.
///
/// Threads       any: receive() needs a task, the rest never waits and may come from OS threads
/// Cancellation  receive() is a cancellation point; cancelled, it took nothing
/// Errors        closed_resource_error (this clone); end_of_stream (nothing more can come);
///               would_block (receive_nowait(); try_receive() gives an empty optional)
/// Source        AnyIO MemoryObjectReceiveStream
template <class T> class memory_object_receive_stream final : public object_receive_stream<T> {
public:
    memory_object_receive_stream(memory_object_receive_stream&& other) noexcept
        : channel_(std::move(other.channel_)), end_(other.end_) {}
    memory_object_receive_stream& operator=(memory_object_receive_stream&& other) noexcept {
        if (this == &other) return *this;
        close_now();
        channel_ = std::move(other.channel_);
        end_ = other.end_;
        return *this;
    }
    ~memory_object_receive_stream() override { close_now(); }

    T receive() override {
        std::optional<item> slot;
        channel().receive(end_, slot);
        return detail::carrier<T>::unwrap(*std::move(slot));
    }
    T receive_nowait() {
        std::optional<item> slot;
        channel().received(channel().take(end_, slot, nullptr));
        return detail::carrier<T>::unwrap(*std::move(slot));
    }
    std::optional<T> try_receive() {
        std::optional<item> slot;
        auto const answer = channel().take(end_, slot, nullptr);
        if (answer == detail::channel_answer::would_block) return std::nullopt;
        channel().received(answer);
        return detail::carrier<T>::unwrap(*std::move(slot));
    }

    auto begin() { return detail::received_items<memory_object_receive_stream, T>(*this); }

    memory_object_receive_stream clone() const {
        return memory_object_receive_stream(channel_ptr(), &end_);
    }
    void close() override { close_now(); }
    memory_object_stream_statistics statistics() const { return channel().statistics(); }

private:
    friend memory_object_stream<T> create_memory_object_stream<T>(double);
    using item = typename detail::memory_channel<T>::item;

    memory_object_receive_stream(std::shared_ptr<detail::memory_channel<T>> from,
                                 detail::channel_end const* like)
        : channel_(std::move(from)), end_(channel_->open_receiver(like)) {}

    std::shared_ptr<detail::memory_channel<T>> const& channel_ptr() const {
        if (!channel_) detail::throw_channel_closed(); // moved from
        return channel_;
    }
    detail::memory_channel<T>& channel() const { return *channel_ptr(); }
    void close_now() noexcept {
        if (channel_) channel_->close_receiver(end_);
    }

    std::shared_ptr<detail::memory_channel<T>> channel_;
    detail::channel_end end_;
};

/// Both ends. Source: AnyIO create_memory_object_stream
template <class T> struct memory_object_stream {
    memory_object_send_stream<T> send;
    memory_object_receive_stream<T> receive;
};

/// Makes a stream of objects between tasks, of any number at each end. The buffer holds so many
/// objects; 0: each is handed over; infinity: sending never waits. Any thread. Errors:
/// std::invalid_argument (a size that is negative, or neither an integer nor infinity). Source:
/// AnyIO create_memory_object_stream
template <class T> memory_object_stream<T> create_memory_object_stream(double max_buffer_size) {
    auto channel = std::make_shared<detail::memory_channel<T>>(max_buffer_size);
    return {memory_object_send_stream<T>(channel, nullptr),
            memory_object_receive_stream<T>(channel, nullptr)};
}

} // namespace weft
