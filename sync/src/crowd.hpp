#pragma once

#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/runtime/detail/wake_batch.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace weft::detail {

/// Those who wait for something that wakes them all, perhaps very many.
///
/// Nodes lie on the stacks of their waiters, each in a page of its own: walking from one to the next
/// costs 600 ns where the TLB misses, and 40 if it is prefetched far ahead. So only every eighth is in
/// the queue: it leads a party, whose members it lists by their control blocks, which are dense; and it
/// knows a leader far behind it, to be prefetched.
///
//  The leader is the first of its party. Who leaves out of turn leaves a hole; a leader that leaves
//  passes its list on to the next of the party, which takes its place in the queue. Everything under
//  the queue's lock; after claim_all() parties belong to who claimed them, until deliver_all() wakes
//  their leaders.
//
//  The last leader knows the first of those that know nobody yet (`payload`) and how many stand between
//  (`detail`). When a leader leaves, this begins anew with the last one. What a leader knows may be gone:
//  it is good for prefetching only.
class crowd {
public:
    class place;

    static void push_back(wait_queue& queue, place& newcomer) noexcept;
    static void remove(wait_queue& queue, place& leaving) noexcept; // if it is still in
    static std::size_t size(wait_queue const& queue) noexcept;

    /// Wins the waits of everybody in the queue, which is empty then; who was cancelled first is out.
    void claim_all(wait_queue& queue) noexcept;

    /// Without the lock: the primitive may be gone as soon as the first is woken.
    void deliver_all() noexcept;

private:
    static constexpr std::uint64_t leaders_ahead = 8;

    static void pass_on(wait_queue& queue, place& leader) noexcept;
    static void begin_with(wait_node& last) noexcept {
        last.payload = &last;
        last.detail = 0;
    }
    static void look_ahead(wait_node& last, wait_node& newcomer) noexcept;

    wait_list claimed_;
};

class alignas(64) crowd::place : public wait_node {
public:
    using wait_node::wait_node;

private:
    friend crowd;

    static constexpr std::size_t most = 8;

    struct member {
        fiber* waiter; // null: it has left
        place* where;
    };

    static place& of(wait_node& node) { return static_cast<place&>(node); }
    void prefetch_far_ahead() const {
        for (std::size_t line = 0; line < sizeof(place); line += 64)
            __builtin_prefetch(static_cast<char const*>(payload) + line);
    }
    void prefetch_members() const {
        for (std::uint32_t number = 0; number < used_; ++number)
            __builtin_prefetch(members_[number].waiter);
    }
    std::size_t present() const {
        return std::size_t(
            std::count_if(members_.begin(), members_.begin() + used_,
                          [](member const& each) { return each.waiter != nullptr; }));
    }
    void admit(place& newcomer) noexcept {
        newcomer.leader_ = this;
        newcomer.number_ = used_;
        members_[used_++] = {newcomer.waiter, &newcomer};
    }

    place* leader_ = nullptr; // null: not in a queue
    std::uint32_t number_ = 0;
    std::uint32_t used_ = 0;           // of a leader
    std::array<member, most> members_; //  ", and only so many
};

inline void crowd::push_back(wait_queue& queue, place& newcomer) noexcept {
    wait_node* const first = queue.waiters.front();
    if (first == nullptr) {
        begin_with(newcomer);
    } else {
        place& last = place::of(*first->previous);
        if (last.used_ < place::most) return last.admit(newcomer);
        look_ahead(last, newcomer);
    }
    newcomer.admit(newcomer);
    queue.waiters.push_back(newcomer);
}

inline void crowd::look_ahead(wait_node& last, wait_node& newcomer) noexcept {
    auto* const knows_nobody = static_cast<wait_node*>(last.payload);
    newcomer.payload = knows_nobody;
    newcomer.detail = last.detail + 1;
    if (newcomer.detail < leaders_ahead) return;
    newcomer.payload = knows_nobody->next;
    newcomer.detail = last.detail;
    knows_nobody->payload = &newcomer;
}

inline void crowd::remove(wait_queue& queue, place& leaving) noexcept {
    place* const leader = std::exchange(leaving.leader_, nullptr);
    if (leader == nullptr) return;
    if (leader == &leaving) return pass_on(queue, leaving);
    leader->members_[leaving.number_].waiter = nullptr;
}

inline void crowd::pass_on(wait_queue& queue, place& leader) noexcept {
    place* heir = nullptr;
    for (std::uint32_t number = 1; number < leader.used_; ++number) {
        if (leader.members_[number].waiter == nullptr) continue;
        place& next = *leader.members_[number].where;
        if (heir == nullptr) heir = &next;
        heir->admit(next);
    }
    if (heir != nullptr) { // behind the leader, which then leaves
        heir->next = leader.next;
        heir->previous = &leader;
        leader.next->previous = heir;
        leader.next = heir;
    }
    queue.waiters.remove(leader);
    if (!queue.waiters.empty()) begin_with(*queue.waiters.front()->previous);
}

inline std::size_t crowd::size(wait_queue const& queue) noexcept {
    std::size_t count = 0;
    if (wait_node* node = queue.waiters.front()) do {
            count += place::of(*node).present();
            node = node->next;
        } while (node != queue.waiters.front());
    return count;
}

inline void crowd::claim_all(wait_queue& queue) noexcept {
    auto const claim = [](fiber& waiter) { // in the queue: still in the wait that it queued for
        return waiter.wait.claim_to_fill(wait_word<>::epoch_of(waiter.wait.load()),
                                         wake_reason::event) != wait_word<>::claim_result::lost;
    };
    while (wait_node* const node = queue.waiters.front()) {
        place& leader = place::of(*node);
        leader.prefetch_far_ahead();
        place::of(*leader.next).prefetch_members();
        if (!claim(*leader.waiter)) {
            remove(queue,
                   leader); // it goes away when it finds itself cancelled, and its list with it
            continue;
        }
        for (std::uint32_t number = 1; number < leader.used_; ++number) {
            place::member& each = leader.members_[number];
            if (each.waiter != nullptr && !claim(*each.waiter)) remove(queue, *each.where);
        }
        queue.waiters.remove(leader);
        claimed_.push_back(leader);
    }
}

inline void crowd::deliver_all() noexcept {
    wake_batch woken;
    while (wait_node* const node = claimed_.pop_front()) {
        place const& leader = place::of(*node);
        leader.prefetch_far_ahead();
        if (claimed_.front() != nullptr) place::of(*claimed_.front()).prefetch_members();
        std::array<fiber*, place::most> party;
        std::size_t const count = leader.used_;
        for (std::size_t number = 0; number < count; ++number) {
            party[number] = leader.members_[number].waiter;
        }
        for (std::size_t number = 0; number < count;
             ++number) // with the first the list may be gone
            if (party[number] != nullptr && party[number]->wait.deliver())
                woken.add(*party[number]);
    }
}

} // namespace weft::detail
