#pragma once

#include <weft/runtime/detail/wait_list.hpp>
#include <weft/runtime/detail/wait_word.hpp>

#include <cstdint>

namespace weft { namespace detail {

/// The waiters of one primitive, with the lock that orders hand-over, cancellation and closing. The
/// word beside the lock is the primitive's own. Must not move while somebody waits.
///
//  How something is handed to the one that has waited longest, and neither lost nor handed out twice.
//
//    the one that gives                              the one that waits
//    G1  lock                                        Q1  arm the wait, node in the own frame
//    G2  pop nodes until claim_to_fill() wins one,   Q2  lock; if there is something to take, take it
//        else keep what is given in the state            and withdraw; else link the node; unlock
//    G3  unlock                                      Q3  suspend
//    G4  fill the node's payload                     Q4  by an event: what was given is ours, and the
//    G5  deliver; schedule, if that is ours              node is unlinked. Cancelled: lock, unlink
//
//  I1  A node is unlinked under the lock, by who claims its wait or, if it lost to a canceller, by
//      whoever of both comes first. When the waiter goes on, nobody knows of the node any more.
//  I2  With a waiter in the queue whose wait can be won nothing is kept: G2 and Q2 exclude each other.
//  I3  Who lost its wait to a canceller is passed over and gets nothing; who was claimed in G2 can no
//      longer be cancelled and owns what it gets. So nothing is lost, whoever comes first.
//  I4  First in, first out: nodes are linked and claimed in the order of the lock.
//  I5  A waiter goes on only after G5, which comes after G3: it may destroy the primitive. Where more
//      than one is woken, all claims come before the first delivery.
//
//  Modelled in tests/model/fair_queue_model.cpp, with nodes whose fields notice races. Node has the
//  fields of wait_node; what its `waiter` points to has a wait_word `wait` and a function schedule().
template <class Node, class Lock> class fair_queue {
public:
    fair_queue() = default;
    fair_queue(fair_queue const&) = delete;
    fair_queue& operator=(fair_queue const&) = delete;

    void lock() noexcept { lock_.lock(); }
    void unlock() noexcept { lock_.unlock(); }

    basic_wait_list<Node> waiters;
    typename Node::template field<std::uint32_t> state{0}; // under the lock, for the primitive

    /// G2. Takes the longest waiting one whose wait can still be won, and wins it; the losers leave
    /// the queue. The caller may fill node->payload and must then call deliver(). Under the lock.
    Node* claim_front(wake_reason reason = wake_reason::event) noexcept {
        return claim_front_of(waiters, reason);
    }
    static Node* claim_front_of(basic_wait_list<Node>& list, wake_reason reason) noexcept {
        while (Node* const node = list.pop_front())
            if (won(node->waiter->wait.claim_to_fill(node->epoch, reason))) return node;
        return nullptr;
    }

    /// G5. Lets a claimed waiter go. The node may be gone as soon as this is called.
    static void deliver(Node& node) noexcept {
        auto& waiter = *node.waiter;
        if (waiter.wait.deliver()) schedule(waiter);
    }

    /// Wakes everybody. Under the lock; the queue is empty afterwards. Not where one of the woken may
    /// destroy the primitive (I5).
    void wake_all(wake_reason reason = wake_reason::event) noexcept {
        while (Node* const node = waiters.pop_front()) {
            auto& waiter = *node->waiter;
            std::uint64_t const epoch = node->epoch; // the node may be gone once the wait is won
            if (is_ours(waiter.wait.claim(epoch, reason))) schedule(waiter);
        }
    }

    /// Q4. After a wait: leaves the queue if no waker took the node out.
    void leave(Node& node) noexcept {
        lock();
        waiters.remove(node);
        unlock();
    }

private:
    template <class Result> static bool won(Result result) { return result != Result::lost; }
    template <class Result> static bool is_ours(Result result) { return result == Result::schedule; }

    Lock lock_;
};

/// Waiters whose waits were won under a primitive's lock, and who are let go after it was released.
///
/// Nothing runs under the lock but claims. Since a waiter goes on only when it is delivered, nobody who
/// was woken can destroy the primitive before the waker has released its lock, which is the waker's
/// last access (I5; M15).
template <class Node, class Lock> class claimed_nodes {
public:
    using queue = fair_queue<Node, Lock>;

    void add(Node& node) noexcept { nodes_.push_back(node); }

    /// Wins the waits of everybody in the queue; those who were cancelled first just leave it. Under
    /// the lock.
    void claim_all(queue& from, wake_reason reason = wake_reason::event) noexcept {
        while (Node* const node = from.claim_front(reason))
            add(*node);
    }

    /// Without the lock.
    void deliver_all() noexcept {
        while (Node* const node = nodes_.pop_front())
            queue::deliver(*node);
    }

private:
    basic_wait_list<Node> nodes_;
};

}} // namespace weft::detail
