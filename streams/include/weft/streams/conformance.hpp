#pragma once

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/byte_stream.hpp>
#include <weft/streams/object_stream.hpp>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace weft {

/// A stream does not do what its interface promises; what() says which promise. Source: Trio
/// check_one_way_stream
class conformance_failure : public error {
public:
    using error::error;
};

/// The two ends of a connection whose streams are to be checked.
struct byte_stream_ends {
    any_byte_stream here;
    any_byte_stream there;
};

/// What the interface leaves open.
struct byte_stream_traits {
    bool half_close = true;           ///< send_eof() works; else it throws std::logic_error
    bool one_task_a_direction = true; ///< a second one gets busy_resource_error
    bool send_waits = true;           ///< sooner or later, while nobody receives
};

/// Checks that a byte stream keeps what byte_receive_stream, byte_send_stream, byte_stream and
/// resource promise: order, ends, closing from both sides and during calls, cancellation, misuse.
/// make() is called for each check, and gives streams that are connected and unused. Both ends are
/// checked.
///
///     weft::run([] { weft::check_byte_stream([] { return ...; }); });
///
/// Cancellation  a cancellation point. It must be alone: it waits until every other task waits
/// Errors        conformance_failure; whatever make() throws
/// Source        Trio check_two_way_stream, check_half_closeable_stream
void check_byte_stream(std::function<byte_stream_ends()> const& make,
                       byte_stream_traits traits = {});

/// The two ends of a connection for objects, or the same object_stream twice if it gives back what
/// it was sent.
template <class T> struct object_stream_ends {
    std::unique_ptr<object_send_stream<T>> send;
    std::unique_ptr<object_receive_stream<T>> receive;
};

namespace detail {

[[noreturn]] void refuse_stream(std::string const& promise);
void expect_of_stream(bool kept, char const* promise);
/// A failure in a child is as good as one here.
void check_stream_by(std::function<void()> const& check);

template <class Failure, class Call> void expect_failure(Call&& call, char const* promise) {
    try {
        call();
    } catch (Failure const&) {
        return;
    }
    refuse_stream(promise);
}

template <class T> void check_order(object_stream_ends<T> ends, std::vector<T> const& items) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            for (T const& item : items)
                ends.send->send(item);
            ends.send->close();
        });
        for (T const& item : items)
            expect_of_stream(ends.receive->receive() == item, "objects arrive once and in order");
    });
    for (int time = 0; time < 2; ++time)
        expect_failure<end_of_stream>([&] { ends.receive->receive(); },
                                      "once the other side is closed there is the end, each time");
    ends.receive->close();
}

template <class T> void check_closing(object_stream_ends<T> ends, T const& item) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_failure<closed_resource_error>([&] { ends.receive->receive(); },
                                                  "close() wakes whoever receives");
        });
        wait_all_tasks_blocked();
        ends.receive->close();
        ends.receive->close();
    });
    expect_failure<closed_resource_error>([&] { ends.receive->receive(); },
                                          "what is closed does not receive");
    expect_failure<broken_resource_error>([&] { ends.send->send(item); },
                                          "sending breaks if nobody can receive");
    ends.send->close();
    expect_failure<closed_resource_error>([&] { ends.send->send(item); },
                                          "what is closed does not send");
}

template <class T> void check_cancelling(object_stream_ends<T> ends, T const& item) {
    cancel_scope cancelled_before;
    cancelled_before.cancel();
    expect_of_stream(!cancelled_before.run([&] { ends.send->send(item); }),
                     "send() is a cancellation point");
    cancel_scope cancelled_later;
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_of_stream(
                !cancelled_later.run([&] { ends.receive->receive(); }),
                "a receive() that is cancelled takes nothing; a cancelled send() sends "
                "nothing");
        });
        wait_all_tasks_blocked();
        cancelled_later.cancel();
    });
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.send->send(item); });
        expect_of_stream(ends.receive->receive() == item,
                         "after a cancellation streams still work");
    });
    close_forcefully(*ends.send);
    expect_failure<end_of_stream>([&] { ends.receive->receive(); },
                                  "close_forcefully() is an end like any other");
    close_forcefully(*ends.receive);
}

} // namespace detail

/// Checks that streams of objects keep what object_send_stream, object_receive_stream and resource
/// promise. make() is called for each check; `items` are sent, at least one. Cancellation and
/// errors as check_byte_stream().
template <class T>
void check_object_stream(std::function<object_stream_ends<T>()> const& make, std::vector<T> items) {
    detail::check_stream_by([&] {
        detail::check_order(make(), items);
        detail::check_closing(make(), items.at(0));
        detail::check_cancelling(make(), items.at(0));
    });
}

} // namespace weft
