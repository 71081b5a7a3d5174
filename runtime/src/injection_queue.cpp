#include "injection_queue.hpp"

#include "abort.hpp"

#if __has_include(<concurrentqueue/concurrentqueue.h>)
#include <concurrentqueue/concurrentqueue.h>
#else
#include <concurrentqueue.h>
#endif

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#include <vector>

namespace weft::detail {

namespace {

constexpr unsigned shared_producers = 8;

using fibers = moodycamel::ConcurrentQueue<fiber*>;

// The queue orders its items by fences, which ThreadSanitizer does not see.
void hand_over(fiber* item) noexcept {
    (void)item;
#if defined(__SANITIZE_THREAD__)
    __tsan_release(item);
#endif
}
void take_over(fiber* item) noexcept {
    (void)item;
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(item);
#endif
}

} // namespace

struct injection_queue::queue {
    struct producer {
        explicit producer(fibers& of) : token(of) {}
        spinlock<lock_rank::run_queue> lock;
        moodycamel::ProducerToken token;
    };

    fibers items;
    std::vector<std::unique_ptr<producer>> shared;
    std::atomic<unsigned> next_shared = 0;
};

injection_queue::injection_queue(producers who) : queue_(std::make_unique<queue>()) {
    for (unsigned number = 0; number < (who == producers::one ? 1 : shared_producers); ++number)
        queue_->shared.push_back(std::make_unique<queue::producer>(queue_->items));
}

injection_queue::~injection_queue() = default;

void injection_queue::push(fiber& item) noexcept {
    count_.fetch_add(1, std::memory_order_seq_cst); // pairs with empty(): before the item is there
    hand_over(&item);
    unsigned turn = queue_->next_shared.fetch_add(1, std::memory_order_relaxed); // spreads, no more
    queue::producer* token = nullptr;
    for (unsigned look = 0; token == nullptr; ++look, ++turn) {
        queue::producer& candidate = *queue_->shared[turn % shared_producers];
        if (candidate.lock.try_lock()) token = &candidate;
        if (look % shared_producers == shared_producers - 1) pause_cpu();
    }
    bool const accepted = queue_->items.enqueue(token->token, &item);
    token->lock.unlock();
    if (!accepted) push_aside(item);
}

void injection_queue::push_own(fiber& item) noexcept {
    count_.fetch_add(1, std::memory_order_seq_cst); // pairs with empty(): before the item is there
    hand_over(&item);
    if (!queue_->items.enqueue(queue_->shared[0]->token, &item)) push_aside(item);
}

void injection_queue::push_aside(fiber& item) noexcept {
    aside_lock_.lock();
    item.next = nullptr;
    (aside_last_ != nullptr ? aside_last_->next : aside_) = &item;
    aside_last_ = &item;
    aside_lock_.unlock();
}

std::size_t injection_queue::take(fiber** out, std::size_t most) noexcept {
    if (empty()) return 0;
    std::size_t count = queue_->items.try_dequeue_bulk(out, most);
    if (count == 0) {
        aside_lock_.lock();
        while (count < most && aside_ != nullptr) {
            out[count++] = aside_;
            aside_ = aside_->next;
        }
        if (aside_ == nullptr) aside_last_ = nullptr;
        aside_lock_.unlock();
    }
    for (std::size_t step = 0; step < count; ++step)
        take_over(out[step]);
    if (count != 0) count_.fetch_sub(count, std::memory_order_seq_cst); // pairs with empty()
    return count;
}

} // namespace weft::detail
