#include <weft/streams/detail/memory_channel.hpp>

#include <weft/streams/error.hpp>

#include <atomic>
#include <cmath>
#include <limits>
#include <stdexcept>

#include <sched.h>

namespace weft::detail {

namespace {

std::size_t capacity_from(double size) {
    if (size < 0) throw std::invalid_argument("max_buffer_size cannot be negative");
    if (std::isinf(size)) return std::numeric_limits<std::size_t>::max();
    if (std::floor(size) != size) // NaN, too
        throw std::invalid_argument("max_buffer_size must be either an integer or infinity");
    if (size >= 9e18) return std::numeric_limits<std::size_t>::max();
    return std::size_t(size);
}

std::atomic_ref<std::uint64_t> number_in(wait_node& node) {
    return std::atomic_ref(node.detail);
}

// Called by a cancelled waiter before it looks at the channel, and by who has unlinked its node, as the last
// look at that (I5).
bool is_first_to_let_go(wait_node& node) {
    return number_in(node).exchange(0, std::memory_order_acq_rel) != 0; // pairs with the other's
}

} // namespace

memory_channel_state::memory_channel_state(double max_buffer_size)
    : capacity_(capacity_from(max_buffer_size)) {}

// Every end is closed, so in the queues is nobody but who is on the way out of them.
memory_channel_state::~memory_channel_state() {
    for (;; ::sched_yield()) {
        lock_.lock();
        bool const is_left = senders_.list.empty() && senders_.leaving == 0 &&
                             receivers_.list.empty() && receivers_.leaving == 0;
        lock_.unlock();
        if (is_left) return;
    }
}

memory_object_stream_statistics memory_channel_state::statistics() const noexcept {
    memory_object_stream_statistics now;
    now.max_buffer_size = capacity_ == std::numeric_limits<std::size_t>::max()
                              ? std::numeric_limits<double>::infinity()
                              : double(capacity_);
    lock_.lock();
    now.current_buffer_used = get(buffered_);
    now.open_send_streams = open_senders_;
    now.open_receive_streams = open_receivers_;
    now.tasks_waiting_send = get(senders_.count);
    now.tasks_waiting_receive = get(receivers_.count);
    lock_.unlock();
    return now;
}

channel_end memory_channel_state::open_sender(channel_end const* like) {
    lock_.lock();
    bool const refused = like != nullptr && like->is_closed;
    channel_end const made{refused ? 0 : ++last_number_, false};
    if (!refused) ++open_senders_;
    lock_.unlock();
    if (refused) throw_channel_closed();
    return made;
}

channel_end memory_channel_state::open_receiver(channel_end const* like) {
    lock_.lock();
    bool const refused = like != nullptr && like->is_closed;
    channel_end const made{refused ? 0 : ++last_number_, false};
    if (!refused) ++open_receivers_;
    lock_.unlock();
    if (refused) throw_channel_closed();
    return made;
}

void memory_channel_state::close_sender(channel_end& end) noexcept {
    lock_.lock();
    if (!end.is_closed) {
        end.is_closed = true;
        senders_.wake_through(end, wake_reason::closed);
        if (--open_senders_ == 0) receivers_.wake_all(wake_reason::broken);
    }
    lock_.unlock();
}

void memory_channel_state::close_receiver(channel_end& end) noexcept {
    lock_.lock();
    if (!end.is_closed) {
        end.is_closed = true;
        receivers_.wake_through(end, wake_reason::closed);
        if (--open_receivers_ == 0) senders_.wake_all(wake_reason::broken);
    }
    lock_.unlock();
}

void memory_channel_state::leave(waiters& queue, wait_node& node) noexcept {
    if (!is_first_to_let_go(node)) return;
    lock_.lock();
    if (node.next != nullptr)
        queue.remove(node);
    else
        --queue.leaving;
    lock_.unlock();
}

void memory_channel_state::waiters::pass_over(wait_node& node) noexcept {
    if (!is_first_to_let_go(node)) ++leaving;
}

void memory_channel_state::waiters::wake_all(wake_reason reason) noexcept {
    while (wait_node* const node = list.pop_front()) {
        fiber& waiter = *node->waiter;
        std::uint64_t const epoch = node->epoch; // the node may be gone once the wait is won
        if (!wake(waiter, epoch, reason)) pass_over(*node);
    }
    count.store(0, std::memory_order_relaxed); // under the lock
}

void memory_channel_state::waiters::wake_through(channel_end const& end,
                                                 wake_reason reason) noexcept {
    wait_node* node = list.front();
    for (std::size_t left = get(count); left != 0; --left) {
        wait_node* const following = node->next;
        if (number_in(*node).load(std::memory_order_relaxed) == end.number) { // under the lock; or 0 (I5)
            remove(*node);
            fiber& waiter = *node->waiter;
            std::uint64_t const epoch = node->epoch; // the node may be gone once the wait is won
            if (!wake(waiter, epoch, reason)) pass_over(*node);
        }
        node = following;
    }
}

void throw_channel_closed() {
    throw closed_resource_error("this end of the memory object stream is closed");
}
void throw_channel_broken() {
    throw broken_resource_error("every receiving end of the memory object stream is closed");
}
void throw_channel_ended() {
    throw end_of_stream("every sending end of the memory object stream is closed");
}
void throw_channel_would_block() {
    throw would_block();
}

} // namespace weft::detail
