#pragma once

#include <cstddef>
#include <cstdint>

namespace weft { namespace detail {

struct fiber;

/// A waiter's place in a queue, on the waiter's stack. Touched by others only under the queue's lock
/// while linked, and by the one who claimed the wait until delivery.
struct wait_node {
    template <class T> using field = T;

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
/// A template, and C++14, for the model, whose nodes have fields that notice races.
template <class Node> class basic_wait_list {
public:
    bool empty() const { return head_ == nullptr; }
    Node* front() const { return head_; }

    void push_back(Node& node) {
        Node* const first = head_;
        if (first == nullptr) {
            head_ = node.next = node.previous = &node;
            return;
        }
        Node* const last = first->previous;
        node.next = first;
        node.previous = last;
        last->next = &node;
        first->previous = &node;
    }

    void remove(Node& node) {
        Node* const next = node.next;
        if (next == nullptr) return;
        if (next == &node) {
            head_ = nullptr;
        } else {
            Node* const previous = node.previous;
            previous->next = next;
            next->previous = previous;
            if (head_ == &node) head_ = next;
        }
        node.next = node.previous = nullptr;
    }

    Node* pop_front() {
        Node* const node = head_;
        if (node != nullptr) remove(*node);
        return node;
    }

    std::size_t size() const {
        std::size_t count = 0;
        if (Node* node = head_) do {
                ++count;
                node = node->next;
            } while (node != head_);
        return count;
    }

private:
    typename Node::template field<Node*> head_{nullptr};
};

using wait_list = basic_wait_list<wait_node>;

}} // namespace weft::detail
