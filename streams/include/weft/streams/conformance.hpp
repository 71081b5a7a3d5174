#pragma once

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/byte_stream.hpp>
#include <weft/streams/object_stream.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
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
    std::function<void()> break_here{}; ///< breaks `here`, by a reset say; none: that is not checked
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
/// checked. A check that is not over within a minute has failed, and what waits is cancelled and
/// closed. Under "sim" the minute is over at once where octets pass through other threads or processes.
///
///     weft::run([] { weft::check_byte_stream([] { return ...; }); });
///
/// Streams of one direction are checked two at a time, stapled crosswise:
///
///     return byte_stream_ends{stapled_byte_stream(std::move(one.send), std::move(other.receive)),
///                             stapled_byte_stream(std::move(other.send), std::move(one.receive))};
///
/// Cancellation  a cancellation point. It must be alone: it waits until every other task waits
/// Errors        conformance_failure (another error of the stream, one it should not have thrown, is
///               nested); whatever make() throws
/// Source        Trio check_two_way_stream, check_half_closeable_stream
void check_byte_stream(std::function<byte_stream_ends()> const& make,
                       byte_stream_traits traits = {});

/// The two ends of a connection for objects. If `send` is an object_stream, its send_eof() is checked,
/// too; if both are, also that `receive` can still send to it afterwards.
template <class T> struct object_stream_ends {
    std::unique_ptr<object_send_stream<T>> send;
    std::unique_ptr<object_receive_stream<T>> receive;
};

/// What the interface leaves open. What is not said is not checked.
struct object_stream_traits {
    /// True: a second one gets busy_resource_error. False: any number wait.
    std::optional<bool> one_task_a_direction = {};
};

namespace detail {

[[noreturn]] void refuse_stream(std::string const& promise);
/// What it threw instead is nested, and is being handled.
[[noreturn]] void refuse_stream(std::string const& promise, std::exception const& instead);
void expect_of_stream(bool kept, char const* promise);
/// After send_eof() it is open which: a stream that is made of two has closed one of them.
void expect_closed_or_broken(std::function<void()> const& call, char const* promise);
/// Runs one check of streams that `close_all` closes. A failure in a child is as good as one here.
void check_promise(std::string const& promise, std::function<void()> const& check,
                   std::function<void()> const& close_all);
/// Forcefully, whatever that throws.
void close_at_last(resource& stream);

template <class Failure, class Call> void expect_failure(Call&& call, char const* promise) {
    try {
        call();
    } catch (Failure const&) {
        return;
    } catch (std::exception const& other) {
        refuse_stream(promise, other);
    }
    refuse_stream(promise);
}

/// How many turns others have at most before a call is cancelled. With several workers that is chance.
constexpr int most_turns = 4;
/// Runs the call in a task, `once_it_waits` when that does, and cancels it after others had so many
/// turns.
void cancel_call(std::function<void()> const& call, int turns,
                 std::function<void()> const& once_it_waits = {});

template <class T, class Check>
void check_objects(char const* promise, object_stream_ends<T> ends, Check check) {
    check_promise(
        promise, [&] { check(ends); },
        [&] {
            close_at_last(*ends.send);
            close_at_last(*ends.receive);
        });
}

template <class T> void check_order(object_stream_ends<T>& ends, std::vector<T> const& items) {
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

template <class T> void check_closing(object_stream_ends<T>& ends, T const& item) {
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
    for (int time = 0; time < 2; ++time)
        expect_failure<broken_resource_error>([&] { ends.send->send(item); },
                                              "sending breaks if nobody can receive, each time");
    ends.send->close();
    expect_failure<closed_resource_error>([&] { ends.send->send(item); },
                                          "what is closed does not send");
}

/// More than most have room for. A stream that has room for them does not wait.
constexpr std::size_t many_objects = 1000;

template <class T>
void send_many(object_send_stream<T>& to, T const& item, std::atomic<std::size_t>& sent) {
    for (; sent < many_objects; ++sent)
        to.send(item);
}

template <class Failure, class T>
void check_close_wakes_sender(object_stream_ends<T>& ends, resource& closed, T const& item,
                              char const* promise) {
    std::atomic<std::size_t> sent = 0;
    std::atomic<bool> is_closed = false;
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            try {
                send_many(*ends.send, item, sent);
            } catch (Failure const&) {
                return;
            }
            expect_of_stream(!is_closed, promise);
        });
        wait_all_tasks_blocked();
        is_closed = true;
        closed.close();
    });
}

/// The other direction is that of `receive`, if that has one.
template <class T> void check_half_close(object_stream_ends<T>& ends, T const& item) {
    auto* const here = dynamic_cast<object_stream<T>*>(ends.send.get());
    if (here == nullptr) return;
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            here->send(item);
            here->send_eof();
            here->send_eof();
        });
        expect_of_stream(ends.receive->receive() == item,
                         "what was sent before send_eof() arrives before the end");
        for (int time = 0; time < 2; ++time)
            expect_failure<end_of_stream>([&] { ends.receive->receive(); },
                                          "after send_eof() there is the end, each time");
    });
    expect_closed_or_broken([&] { here->send(item); }, "nothing can be sent after send_eof()");
    if (auto* const there = dynamic_cast<object_stream<T>*>(ends.receive.get()))
        with_task_group([&](task_group& group) {
            group.start_soon([&] { there->send(item); });
            expect_of_stream(here->receive() == item,
                             "after send_eof() the other direction goes on");
        });
    here->close();
    expect_failure<closed_resource_error>([&] { here->send_eof(); },
                                          "what is closed refuses send_eof()");
}

template <class T> void check_one_receiver(object_stream_ends<T>& ends, T const& item) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_of_stream(ends.receive->receive() == item,
                             "a second receiver does not harm the first");
        });
        wait_all_tasks_blocked();
        expect_failure<busy_resource_error>([&] { ends.receive->receive(); },
                                            "a second receiver is turned away");
        ends.send->send(item);
    });
}

template <class T> void check_many_tasks(object_stream_ends<T>& ends, T const& item) {
    for (bool const receivers_first : {true, false})
        with_task_group([&](task_group& group) {
            for (bool const receives : {receivers_first, !receivers_first}) {
                for (int task = 0; task < 2; ++task)
                    group.start_soon([&, receives] {
                        if (!receives) return ends.send->send(item);
                        expect_of_stream(ends.receive->receive() == item,
                                         "each of several receivers has an object");
                    });
                wait_all_tasks_blocked();
            }
        });
}

template <class T> void check_cancelled(object_stream_ends<T>& ends, T const& item) {
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

template <class T> std::size_t count_until_end(object_receive_stream<T>& from) {
    std::size_t count = 0;
    for (auto each = from.begin(); each != from.end(); ++each)
        ++count;
    return count;
}

/// Cancelled while an object comes, or is there already.
template <class T>
void check_cancelled_receive(object_stream_ends<T>& ends, T const& item, int turns, bool waits) {
    std::size_t received = 0;
    auto const receive = [&] {
        ends.receive->receive();
        ++received;
    };
    with_task_group([&](task_group& group) {
        auto const send = [&] {
            group.start_soon([&] {
                ends.send->send(item);
                ends.send->close();
            });
        };
        if (!waits) send();
        cancel_call(receive, turns, waits ? std::function<void()>(send) : nullptr);
        received += count_until_end(*ends.receive);
    });
    expect_of_stream(received == 1, "a receive() that is cancelled takes nothing");
}

template <class T> void check_cancelled_sends(object_stream_ends<T>& ends, T const& item) {
    std::size_t sent = 0;
    std::size_t received = 0;
    with_task_group([&](task_group& group) {
        group.start_soon([&] { received = count_until_end(*ends.receive); });
        for (int turns = 0; turns < most_turns; ++turns)
            cancel_call(
                [&] {
                    ends.send->send(item);
                    ++sent;
                },
                turns);
        ends.send->close();
    });
    expect_of_stream(received == sent, "a send() that is cancelled sends nothing");
}

template <class T> void check_cancelled_waiting_send(object_stream_ends<T>& ends, T const& item) {
    std::atomic<std::size_t> sent = 0;
    std::size_t received = 0;
    cancel_call([&] { send_many(*ends.send, item, sent); }, 0, [] {});
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.send->close(); });
        received = count_until_end(*ends.receive);
    });
    expect_of_stream(received == sent, "a send() that is cancelled while it waits sends nothing");
}

template <class T> void check_one_sender(object_stream_ends<T>& ends, T const& item) {
    std::atomic<std::size_t> sent = 0;
    std::size_t received = 0;
    std::size_t more = 0;
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            send_many(*ends.send, item, sent);
            ends.send->close();
        });
        wait_all_tasks_blocked();
        std::size_t const before = sent;
        if (before < many_objects) {
            try {
                ends.send->send(item);
                ++more;
            } catch (busy_resource_error const&) {
            }
            // What the first one waited for may just have come by itself.
            expect_of_stream(more == 0 || sent != before, "a second sender is turned away");
        }
        received = count_until_end(*ends.receive);
    });
    expect_of_stream(received == many_objects + more, "a second sender does not harm the first");
}

} // namespace detail

/// Checks that streams of objects keep what object_send_stream, object_receive_stream and resource
/// promise. make() is called for each check; `items` are sent, at least one. Cancellation and
/// errors as check_byte_stream().
template <class T>
void check_object_stream(std::function<object_stream_ends<T>()> const& make, std::vector<T> items,
                         object_stream_traits traits = {}) {
    using namespace detail;
    using ends_of = object_stream_ends<T>;
    T const& item = items.at(0);
    check_objects("objects arrive in order, before the end", make(),
                  [&](ends_of& ends) { check_order(ends, items); });
    check_objects("close() wakes whoever receives, and tells whoever sends", make(),
                  [&](ends_of& ends) { check_closing(ends, item); });
    check_objects("close() wakes whoever sends", make(), [&](ends_of& ends) {
        check_close_wakes_sender<closed_resource_error>(ends, *ends.send, item,
                                                        "close() wakes whoever sends");
    });
    check_objects("close() of who receives breaks a send() that waits", make(), [&](ends_of& ends) {
        check_close_wakes_sender<broken_resource_error>(
            ends, *ends.receive, item, "close() of who receives breaks a send() that waits");
    });
    check_objects("send_eof() ends one direction", make(),
                  [&](ends_of& ends) { check_half_close(ends, item); });
    if (traits.one_task_a_direction == true) {
        check_objects("a second receiver is turned away", make(),
                      [&](ends_of& ends) { check_one_receiver(ends, item); });
        check_objects("a second sender is turned away", make(),
                      [&](ends_of& ends) { check_one_sender(ends, item); });
    } else if (traits.one_task_a_direction == false) {
        check_objects("any number of tasks send and receive", make(),
                      [&](ends_of& ends) { check_many_tasks(ends, item); });
    }
    check_objects("a cancelled call does nothing, and streams still work", make(),
                  [&](ends_of& ends) { check_cancelled(ends, item); });
    check_objects("a send() that is cancelled sends nothing", make(),
                  [&](ends_of& ends) { check_cancelled_sends(ends, item); });
    check_objects("send() is cancelled while it waits", make(),
                  [&](ends_of& ends) { check_cancelled_waiting_send(ends, item); });
    for (int turns = 0; turns < most_turns; ++turns)
        for (bool const waits : {false, true})
            check_objects(
                "a receive() that is cancelled takes nothing", make(),
                [&](ends_of& ends) { check_cancelled_receive(ends, item, turns, waits); });
}

} // namespace weft
