#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::detail {

struct fiber;

/// A waiter's place in a queue, on the waiter's stack. Touched by others only under the queue's lock
/// while linked, and by the one who claimed the wait until delivery.
struct wait_node {
    template <class Parking>
    explicit wait_node(Parking const& wait) : waiter(&wait.owner()), epoch(wait.epoch()) {}
    wait_node(wait_node const&) = delete;
    wait_node& operator=(wait_node const&) = delete;

    wait_node* next = nullptr; // null: not linked
    wait_node* previous = nullptr;
    fiber* waiter;
    std::uint64_t epoch;
    void* payload = nullptr;   // whatever the primitive hands over
    std::uint64_t detail = 0;  //  "
};

/// First in, first out; a ring through its nodes, one pointer. Everything under the owner's lock.
class wait_list {
public:
    bool empty() const { return head_ == nullptr; }
    wait_node* front() const { return head_; }

    void push_back(wait_node& node) {
        if (head_ == nullptr) {
            head_ = node.next = node.previous = &node;
            return;
        }
        node.next = head_;
        node.previous = head_->previous;
        head_->previous->next = &node;
        head_->previous = &node;
    }

    void remove(wait_node& node) {
        if (node.next == nullptr) return;
        if (node.next == &node) {
            head_ = nullptr;
        } else {
            node.previous->next = node.next;
            node.next->previous = node.previous;
            if (head_ == &node) head_ = node.next;
        }
        node.next = node.previous = nullptr;
    }

    wait_node* pop_front() {
        wait_node* const node = head_;
        if (node != nullptr) remove(*node);
        return node;
    }

    std::size_t size() const {
        std::size_t count = 0;
        if (wait_node* node = head_) do {
                ++count;
                node = node->next;
            } while (node != head_);
        return count;
    }

private:
    wait_node* head_ = nullptr;
};

} // namespace weft::detail
