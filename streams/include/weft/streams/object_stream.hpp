#pragma once

#include <weft/io/resource.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/typed_attributes.hpp>

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

namespace weft {

namespace detail {

/// What `for (T item : stream)` walks over: receives until end_of_stream; other errors pass.
template <class Stream, class T> class received_items {
public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;

    received_items() = default;
    explicit received_items(Stream& from) : from_(&from) { ++*this; }

    T& operator*() const { return *item_; }
    T* operator->() const { return &*item_; }
    received_items& operator++() {
        item_.reset();
        try {
            item_.emplace(from_->receive());
        } catch (end_of_stream const&) { // leaves no item
        }
        return *this;
    }
    void operator++(int) { ++*this; }

    friend bool operator==(received_items const& place, std::default_sentinel_t) {
        return !place.item_;
    }

private:
    Stream* from_ = nullptr;
    mutable std::optional<T> item_; // the item belongs to whoever looks at it
};

} // namespace detail

/// Where objects come from, some of which may be lost, doubled or out of order on their way.
///
/// Any number of tasks may receive if the implementation says so, else a second one at the same
/// time gets busy_resource_error. `for (T item : stream)` receives until end_of_stream.
///
/// Cancellation  receive() is a cancellation point; cancelled, it took nothing
/// Errors        closed_resource_error (closed on this side); end_of_stream (by the other, in
///               order); broken_resource_error (of no use any more; the cause is nested)
/// Source        AnyIO UnreliableObjectReceiveStream
template <class T>
class unreliable_object_receive_stream : public virtual resource,
                                         public virtual typed_attribute_provider {
public:
    virtual T receive() = 0;

    auto begin() { return detail::received_items<unreliable_object_receive_stream, T>(*this); }
    std::default_sentinel_t end() { return {}; }
};

/// Where objects go to, some of which may be lost on their way.
///
/// Cancellation  send() is a cancellation point; cancelled, it sent nothing
/// Errors        closed_resource_error, broken_resource_error
/// Source        AnyIO UnreliableObjectSendStream
template <class T>
class unreliable_object_send_stream : public virtual resource,
                                      public virtual typed_attribute_provider {
public:
    virtual void send(T item) = 0;
};

/// Both directions. Source: AnyIO UnreliableObjectStream
template <class T>
class unreliable_object_stream : public virtual unreliable_object_receive_stream<T>,
                                 public virtual unreliable_object_send_stream<T> {};

/// Objects come complete, once, and in the order in which they were sent. Source: AnyIO
/// ObjectReceiveStream
template <class T>
class object_receive_stream : public virtual unreliable_object_receive_stream<T> {};

/// Objects arrive complete, once, and in the order in which they are sent. Source: AnyIO
/// ObjectSendStream
template <class T>
class object_send_stream : public virtual unreliable_object_send_stream<T> {};

/// Both directions, reliably. Source: AnyIO ObjectStream
template <class T>
class object_stream : public virtual object_receive_stream<T>,
                      public virtual object_send_stream<T>,
                      public virtual unreliable_object_stream<T> {
public:
    /// Says that nothing more will be sent; receiving goes on. Idempotent.
    virtual void send_eof() = 0;
};

} // namespace weft
