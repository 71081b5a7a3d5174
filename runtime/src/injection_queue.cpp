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

#include <new>
#include <vector>

#include <pthread.h>

namespace weft::detail {

namespace {

constexpr unsigned shared_producers = 8;

struct queue_traits : moodycamel::ConcurrentQueueDefaultTraits {
    static void* malloc(std::size_t size) { return ::operator new(size, std::nothrow); }
    static void free(void* memory) { ::operator delete(memory); }
};
using fibers = moodycamel::ConcurrentQueue<fiber*, queue_traits>;

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

// Another core has just written it. All of a batch at once: they take no longer than one.
void prefetch(fiber const& item) noexcept {
    auto const* const block = reinterpret_cast<char const*>(&item);
    for (std::size_t line = 0; line < sizeof item; line += 64)
        __builtin_prefetch(block + line);
}

// The same one each time for a thread, unless another one is at it: no counter is shared, and what a thread
// pushes mostly stays in order.
unsigned place_of_thread() noexcept {
    return unsigned(std::uint64_t(::pthread_self()) * 0x9e3779b97f4a7c15u >> 32) % shared_producers;
}

} // namespace

struct injection_queue::queue {
    struct producer {
        explicit producer(fibers& of) : token(of) {
            if (!token.valid()) throw std::bad_alloc();
        }
        spinlock<lock_rank::run_queue> lock;
        moodycamel::ProducerToken token;
    };

    fibers items;
    std::vector<std::unique_ptr<producer>> shared;
};

injection_queue::injection_queue(producers who) : queue_(std::make_unique<queue>()) {
    for (unsigned number = 0; number < (who == producers::one ? 1 : shared_producers); ++number)
        queue_->shared.push_back(std::make_unique<queue::producer>(queue_->items));
}

injection_queue::~injection_queue() = default;

void injection_queue::push(fiber& item) noexcept {
    count_.fetch_add(1, std::memory_order_seq_cst); // pairs with empty(): before the item is there
    hand_over(&item);
    unsigned turn = place_of_thread();
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

void injection_queue::push_own(fiber* const* items, std::size_t count) noexcept {
    count_.fetch_add(count, std::memory_order_seq_cst); // pairs with empty(): before the items are there
    for (std::size_t step = 0; step < count; ++step)
        hand_over(items[step]);
    if (queue_->items.enqueue_bulk(queue_->shared[0]->token, items, count)) return;
    for (std::size_t step = 0; step < count; ++step)
        push_aside(*items[step]);
}

void injection_queue::push_aside(fiber& item) noexcept {
    aside_lock_.lock();
    item.next = nullptr;
    (aside_ != nullptr ? aside_last_->next : aside_) = &item;
    aside_last_ = &item;
    has_aside_.store(true, std::memory_order_relaxed); // a hint: count_ says that there is something
    aside_lock_.unlock();
}

std::size_t injection_queue::take_aside(fiber** out, std::size_t most) noexcept {
    std::size_t count = 0;
    aside_lock_.lock();
    while (count < most && aside_ != nullptr) {
        out[count++] = aside_;
        aside_ = aside_->next;
    }
    if (aside_ == nullptr) has_aside_.store(false, std::memory_order_relaxed); // under the lock
    aside_lock_.unlock();
    return count;
}

std::size_t injection_queue::take(fiber** out, std::size_t most) noexcept {
    if (empty()) return 0;
    std::size_t count = 0;
    if (has_aside_.load(std::memory_order_relaxed)) count = take_aside(out, most); // a hint; first: they were before
    if (count < most) count += queue_->items.try_dequeue_bulk(out + count, most - count);
    for (std::size_t step = 0; step < count; ++step) {
        take_over(out[step]);
        if (queue_->shared.size() > 1) prefetch(*out[step]); // else they are our own, and many
    }
    if (count != 0) count_.fetch_sub(count, std::memory_order_seq_cst); // pairs with empty()
    return count;
}

} // namespace weft::detail
