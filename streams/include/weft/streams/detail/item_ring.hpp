#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <memory>
#include <utility>

namespace weft::detail {

/// A queue of items in one piece of memory. Never allocates under its owner's lock: the owner makes
/// larger storage outside of the lock and hands it in.
///
/// Source  the usual ring with free-running indices
template <class Item> class item_ring {
public:
    /// Memory for items; a value, so that what was replaced can be freed after unlocking.
    class storage {
    public:
        storage() = default;
        explicit storage(std::size_t slots)
            : items_(std::allocator<Item>().allocate(slots)), slots_(slots) {}
        storage(storage&& other) noexcept { swap(other); }
        storage& operator=(storage&& other) noexcept {
            swap(other);
            return *this;
        }
        ~storage() {
            if (items_ != nullptr) std::allocator<Item>().deallocate(items_, slots_);
        }
        void swap(storage& other) noexcept {
            std::swap(items_, other.items_);
            std::swap(slots_, other.slots_);
        }
        std::size_t slots() const { return slots_; }
        Item* at(std::size_t index) const { return items_ + (index & (slots_ - 1)); }

    private:
        Item* items_ = nullptr;
        std::size_t slots_ = 0; // 0 or a power of two
    };

    item_ring() = default;
    item_ring(item_ring const&) = delete;
    item_ring& operator=(item_ring const&) = delete;
    ~item_ring() {
        for (; head_ != tail_; ++head_)
            std::destroy_at(storage_.at(head_));
    }

    bool is_full() const { return tail_ - head_ == storage_.slots(); }

    /// How much storage to make when it is full: all that is ever needed if that is little.
    std::size_t next_size(std::size_t most_items) const {
        constexpr std::size_t at_once = std::max<std::size_t>(16, 16384 / sizeof(Item));
        if (most_items <= at_once) return std::bit_ceil(most_items);
        return std::max<std::size_t>(std::bit_floor(at_once), storage_.slots() * 2);
    }

    /// Moves into larger storage; `larger` then holds the old one.
    void move_into(storage& larger) noexcept {
        for (std::size_t index = head_; index != tail_; ++index) {
            std::construct_at(larger.at(index), std::move(*storage_.at(index)));
            std::destroy_at(storage_.at(index));
        }
        storage_.swap(larger);
    }

    void push(Item&& item) noexcept { // not full
        std::construct_at(storage_.at(tail_), std::move(item));
        ++tail_;
    }

    template <class Slot> void pop_into(Slot& slot) noexcept { // not empty
        slot.emplace(std::move(*storage_.at(head_)));
        std::destroy_at(storage_.at(head_));
        ++head_;
    }

private:
    storage storage_;
    std::size_t head_ = 0;
    std::size_t tail_ = 0;
};

} // namespace weft::detail
