#pragma once

#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/spinlock.hpp>
#include <weft/runtime/detail/wait_list.hpp>
#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/streams/detail/item_ring.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace weft {

/// What is known of a memory object stream at one moment. Source: AnyIO
/// MemoryObjectStreamStatistics
struct memory_object_stream_statistics {
    std::size_t current_buffer_used = 0;
    double max_buffer_size = 0;
    std::size_t open_send_streams = 0;
    std::size_t open_receive_streams = 0;
    std::size_t tasks_waiting_send = 0;
    std::size_t tasks_waiting_receive = 0;

    friend bool operator==(memory_object_stream_statistics const&,
                           memory_object_stream_statistics const&) = default;
};

} // namespace weft

namespace weft::detail {

/// What a call on a channel came to.
enum class channel_answer : std::uint8_t {
    done,
    queued,      // the waiter stands in its queue
    would_block,
    closed,      // this end
    gone         // every end of the other kind
};

/// One clone of one end, as the channel knows it. Under the channel's lock.
struct channel_end {
    std::uint64_t number = 0; // waiters carry it, so that closing finds those that wait through it
    bool is_closed = false;
};

/// The state of a memory object stream, but for the items.
///
//  How an item gets from a sender to a receiver, exactly once.
//
//    the one who comes second                        the one who waits
//    H1  lock                                        W1  arm the wait, node in the own frame
//    H2  pop nodes until claim_to_fill() wins one    W2  lock; look again; link the node; unlock
//    H3  unlock (buffered items: move first)         W3  suspend
//    H4  move the item from or into that frame       W4  event: the item has gone or come, the
//    H5  deliver; the node may be gone                   node is unlinked. Cancelled: leave()
//
//  I1  A node is unlinked by its waker; after a cancellation by the waiter, or by who finds it before.
//  I2  Whoever lost its wait to a cancellation is skipped in H2: its item stays with it, and no
//      item is given to it (MS3).
//  I3  Receivers wait only while nothing is buffered, senders only while the buffer is full;
//      storage for all that it may hold then exists, so refilling it in take() needs no memory.
//  I4  Between H2 and H5 the frame of the waiter cannot go away: the claim owns the wait.
//  I5  After a cancellation both the waiter and who unlinks its node take the end's number out of it.
//      A waiter that comes second leaves the channel alone: it may be gone. One that comes first still
//      takes the lock, and what destroys the channel waits for that: some instructions.
//
//  Moves into and out of the buffer happen under the lock. They cannot throw, since what could is
//  boxed; and they are short, since a move constructor that waits or uses the stream itself would
//  deadlock, which memory.hpp says.
//  The counters are written under the lock and are atomics for the looks that choose between trying
//  first and arming first; a wrong guess costs time only.
class memory_channel_state {
public:
    explicit memory_channel_state(double max_buffer_size); // Errors: std::invalid_argument
    memory_channel_state(memory_channel_state const&) = delete;
    memory_channel_state& operator=(memory_channel_state const&) = delete;
    ~memory_channel_state(); // I5

    memory_object_stream_statistics statistics() const noexcept;

    channel_end open_sender(channel_end const* like); // Errors: closed_resource_error
    channel_end open_receiver(channel_end const* like);
    void close_sender(channel_end&) noexcept;
    void close_receiver(channel_end&) noexcept;

protected:
    using counter = std::atomic<std::size_t>;

    struct waiters {
        wait_list list;
        counter count = 0;
        std::size_t leaving = 0; // I5: came first, and then their nodes were unlinked by others

        wait_node* claim_front() noexcept { // H2
            while (wait_node* const node = list.pop_front()) {
                add(count, std::size_t(-1));
                if (node->waiter->wait.claim_to_fill(node->epoch, wake_reason::event) !=
                    wait_word<>::claim_result::lost)
                    return node;
                pass_over(*node);
            }
            return nullptr;
        }
        void push_back(wait_node& node) noexcept {
            list.push_back(node);
            add(count, 1);
        }
        void remove(wait_node& node) noexcept {
            list.remove(node);
            add(count, std::size_t(-1));
        }
        void pass_over(wait_node&) noexcept; // its wait was lost, it is unlinked
        void wake_all(wake_reason) noexcept;
        void wake_through(channel_end const&, wake_reason) noexcept;
    };

    static void add(counter& to, std::size_t more) noexcept {
        to.store(get(to) + more, std::memory_order_relaxed); // under the lock
    }
    static std::size_t get(counter const& from) noexcept {
        return from.load(std::memory_order_relaxed); // under the lock, or a guess
    }

    void leave(waiters&, wait_node&) noexcept; // W4

    mutable spinlock<lock_rank::queue> lock_;
    std::size_t open_senders_ = 0;
    std::size_t open_receivers_ = 0;
    std::uint64_t last_number_ = 0;
    std::size_t const capacity_;
    counter buffered_ = 0;
    waiters senders_;
    waiters receivers_;
};

[[noreturn]] void throw_channel_closed();
[[noreturn]] void throw_channel_broken();
[[noreturn]] void throw_channel_ended();
[[noreturn]] void throw_channel_would_block();

/// How an item travels: as it is if moving it cannot fail, else in a box.
template <class T, bool = std::is_nothrow_move_constructible_v<T>> struct carrier {
    using item = T;
    static item&& wrap(T& value) { return std::move(value); }
    static item&& lend(T& value) { return std::move(value); }
    static void take_back(item&, T&) {} // it never left
    static T unwrap(item&& carried) { return std::move(carried); }
};
template <class T> struct carrier<T, false> {
    using item = std::unique_ptr<T>;
    static item wrap(T& value) { return std::make_unique<T>(std::move(value)); }
    /// So that take_back() is possible: what could not be assigned to is copied.
    static item lend(T& value) {
        if constexpr (std::is_move_assignable_v<T>)
            return wrap(value);
        else
            return std::make_unique<T>(std::as_const(value));
    }
    static void take_back(item& carried, T& value) {
        if constexpr (std::is_move_assignable_v<T>) value = std::move(*carried);
    }
    static T unwrap(item&& carried) { return std::move(*carried); }
};

/// The channel with its items. See memory_channel_state for the protocol.
template <class T> class memory_channel final : public memory_channel_state {
public:
    using item = typename carrier<T>::item;
    using memory_channel_state::memory_channel_state;

    /// Hands the item over or buffers it; else the node waits with it, if there is one. Any thread.
    [[gnu::noinline]] channel_answer put(channel_end const& end, item& given, wait_node* node) {
        return put_here(end, given, node);
    }

    /// The same in the caller's frame, as take() is: a fourth more goes through a channel. But where the
    /// sender waits, one copy for all is faster.
    [[gnu::always_inline]] channel_answer put_here(channel_end const& end, item& given,
                                                   wait_node* node) {
        for (;;) {
            lock_.lock();
            if (end.is_closed) return unlocked(channel_answer::closed);
            if (open_receivers_ == 0) return unlocked(channel_answer::gone);
            if (wait_node* const receiver = receivers_.claim_front()) {
                lock_.unlock();
                static_cast<std::optional<item>*>(receiver->payload)
                    ->emplace(std::move(given)); // H4
                wait_queue::deliver(*receiver);
                return channel_answer::done;
            }
            if (get(buffered_) >= capacity_) {
                if (node == nullptr) return unlocked(channel_answer::would_block);
                senders_.push_back(*node); // W2
                return unlocked(channel_answer::queued);
            }
            if (!ring_.is_full()) {
                ring_.push(std::move(given));
                add(buffered_, 1);
                return unlocked(channel_answer::done);
            }
            std::size_t const wanted = ring_.next_size(capacity_);
            lock_.unlock();
            enlarge(wanted);
        }
    }

    /// Takes the oldest item; else the node waits for one, if there is one. Any thread.
    [[gnu::always_inline]] channel_answer take(channel_end const& end, std::optional<item>& into,
                                               wait_node* node) noexcept {
        lock_.lock();
        if (end.is_closed) return unlocked(channel_answer::closed);
        if (get(buffered_) != 0) {
            ring_.pop_into(into);
            wait_node* const sender = senders_.claim_front();
            if (sender == nullptr) {
                add(buffered_, std::size_t(-1));
                return unlocked(channel_answer::done);
            }
            ring_.push(std::move(*static_cast<item*>(sender->payload))); // H4; I3: there is room
            lock_.unlock();
            wait_queue::deliver(*sender);
            return channel_answer::done;
        }
        if (wait_node* const sender = senders_.claim_front()) {
            lock_.unlock();
            into.emplace(std::move(*static_cast<item*>(sender->payload))); // H4
            wait_queue::deliver(*sender);
            return channel_answer::done;
        }
        if (open_senders_ == 0) return unlocked(channel_answer::gone);
        if (node == nullptr) return unlocked(channel_answer::would_block);
        receivers_.push_back(*node); // W2
        return unlocked(channel_answer::queued);
    }

    void send(channel_end const& end, item& given) {
        static constexpr char const* call = "memory_object_send_stream.send";
        fiber const& self = enter_blocking_call(call);
        // Inside no_suspend an error must not have to wait.
        if (get(receivers_.count) != 0 || get(buffered_) < capacity_ || self.suspension_bans != 0) {
            channel_answer const answer = put_here(end, given, nullptr);
            if (answer != channel_answer::would_block) return sent(answer);
        }
        parking wait(call);
        wait_node node(wait);
        node.payload = &given;
        node.detail = end.number;
        if (channel_answer const answer = queue_or_withdraw(
                wait, [&] { return put(end, given, &node); });
            answer != channel_answer::queued)
            return sent(answer);
        finish(wait, senders_, node);
    }

    void receive(channel_end const& end, std::optional<item>& into) {
        static constexpr char const* call = "memory_object_receive_stream.receive";
        fiber const& self = enter_blocking_call(call);
        if (get(buffered_) != 0 || get(senders_.count) != 0 || self.suspension_bans != 0) { // as in send()
            channel_answer const answer = take(end, into, nullptr);
            if (answer != channel_answer::would_block) return received(answer);
        }
        parking wait(call);
        wait_node node(wait);
        node.payload = &into;
        node.detail = end.number;
        if (channel_answer const answer = queue_or_withdraw(
                wait, [&] { return take(end, into, &node); });
            answer != channel_answer::queued)
            return received(answer);
        finish(wait, receivers_, node);
    }

    static void sent(channel_answer answer) {
        if (answer == channel_answer::done) return;
        if (answer == channel_answer::closed) throw_channel_closed();
        if (answer == channel_answer::gone) throw_channel_broken();
        throw_channel_would_block();
    }
    static void received(channel_answer answer) {
        if (answer == channel_answer::done) return;
        if (answer == channel_answer::closed) throw_channel_closed();
        if (answer == channel_answer::gone) throw_channel_ended();
        throw_channel_would_block();
    }

private:
    /// Storage is made, and what it replaces is freed, without the lock.
    [[gnu::noinline]] void enlarge(std::size_t slots) { // throws: nothing has happened
        typename item_ring<item>::storage larger(slots);
        lock_.lock();
        if (ring_.is_full() && slots >= ring_.next_size(capacity_)) ring_.move_into(larger);
        lock_.unlock();
    }

    channel_answer unlocked(channel_answer answer) noexcept {
        lock_.unlock();
        return answer;
    }

    // A canceller that wins against the withdrawal changes nothing: the call was allowed to
    // complete, and the next one throws.
    template <class Try> static channel_answer queue_or_withdraw(parking& wait, Try attempt) {
        try {
            channel_answer const answer = attempt();
            if (answer != channel_answer::queued) wait.withdraw();
            return answer;
        } catch (...) { // no memory
            wait.withdraw();
            throw;
        }
    }

    void finish(parking& wait, waiters& queue, wait_node& node) {
        switch (wait.suspend()) {
        case wake_reason::event:
            return;
        case wake_reason::closed:
            throw_channel_closed();
        case wake_reason::broken:
            if (&queue == &senders_) throw_channel_broken();
            throw_channel_ended();
        default:
            leave(queue, node);
            throw_cancelled(wait.owner());
        }
    }

    item_ring<item> ring_;
};

} // namespace weft::detail
