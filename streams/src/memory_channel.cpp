#include <weft/streams/detail/memory_channel.hpp>

#include <weft/streams/error.hpp>

#include <cmath>
#include <limits>
#include <stdexcept>

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

} // namespace

memory_channel_state::memory_channel_state(double max_buffer_size)
    : capacity_(capacity_from(max_buffer_size)) {}

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

void memory_channel_state::waiters::wake_all(wake_reason reason) noexcept {
    while (wait_node* const node = list.pop_front()) {
        fiber& waiter = *node->waiter;
        std::uint64_t const epoch = node->epoch; // the node may be gone once the wait is won
        wake(waiter, epoch, reason);
    }
    count.store(0, std::memory_order_relaxed); // under the lock
}

void memory_channel_state::waiters::wake_through(channel_end const& end,
                                                 wake_reason reason) noexcept {
    wait_node* node = list.front();
    for (std::size_t left = get(count); left != 0; --left) {
        wait_node* const following = node->next;
        if (node->detail == end.number) {
            remove(*node);
            fiber& waiter = *node->waiter;
            std::uint64_t const epoch = node->epoch; // the node may be gone once the wait is won
            wake(waiter, epoch, reason);
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
