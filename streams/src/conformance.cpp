#include <weft/streams/conformance.hpp>

#include <weft/io/bytes.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <stdexcept>

namespace weft {

namespace detail {

void refuse_stream(std::string const& promise) {
    throw conformance_failure("the stream does not keep this: " + promise);
}

void expect_of_stream(bool kept, char const* promise) {
    if (!kept) refuse_stream(promise);
}

void check_stream_by(std::function<void()> const& check) {
    try {
        check();
    } catch (exception_group const& failures) {
        if (!failures.contains<conformance_failure>()) throw;
        throw conformance_failure(failures.what());
    }
}

namespace {

constexpr std::size_t much = 300'000;        // more than fits into the buffers of most
constexpr std::size_t too_much = 20'000'000; // than fits into those of any

bytes pattern(std::size_t size, unsigned start) {
    bytes data(size, '\0');
    for (std::size_t at = 0; at < size; ++at)
        data[at] = char((at * 131 + (at >> 8) + start) & 0xff);
    return data;
}

bytes receive_exactly(byte_receive_stream& from, std::size_t size, std::size_t at_once) {
    bytes result;
    while (result.size() < size)
        result += from.receive(std::min(at_once, size - result.size()));
    return result;
}

void close_both_at_once(byte_stream_ends& ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.here.close(); });
        ends.there.close();
    });
}

// A stream that is broken already may say so once more.
void drop(byte_stream& stream) {
    try {
        close_forcefully(stream);
    } catch (broken_resource_error const&) {
    }
}

void drop(byte_stream_ends& ends) {
    drop(ends.here);
    drop(ends.there);
}

void check_misuse(byte_stream_ends ends) {
    expect_failure<std::invalid_argument>([&] { ends.here.receive(0); }, "receive(0) is refused");
    expect_failure<std::invalid_argument>([&] { ends.here.receive_some({}); },
                                          "an empty buffer is refused");
    static constexpr typed_attribute<int> unknown{"unknown"};
    expect_failure<typed_attribute_lookup_error>([&] { ends.here.extra(unknown); },
                                                 "an attribute that is not there is not given");
    expect_of_stream(ends.here.extra(unknown, 7) == 7, "a fallback stands for what is not there");
    drop(ends);
}

void check_small(byte_stream_ends ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            ends.here.send("");
            ends.here.send("on");
            bytes_view const parts[] = {"e", "", " two"};
            ends.here.send(parts);
            ends.here.send(std::span<bytes_view const>());
            ends.here.send("!");
        });
        expect_of_stream(receive_exactly(ends.there, 8, 2) == "one two!",
                         "octets arrive in order, and nothing else does");
    });
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.here.send("x"); });
        expect_of_stream(ends.there.receive(SIZE_MAX) == "x", "receive() takes any limit");
    });
    close_both_at_once(ends);
}

void transfer(byte_send_stream& from, byte_receive_stream& to, unsigned start) {
    bytes const data = pattern(much, start);
    with_task_group([&](task_group& group) {
        group.start_soon([&] { from.send(data); });
        std::size_t const at_once = 1 + start * 5000;
        expect_of_stream(receive_exactly(to, much, at_once) == data,
                         "much arrives as it was sent, however it is received");
    });
}

void check_much(byte_stream_ends ends) {
    transfer(ends.here, ends.there, 1);
    with_task_group([&](task_group& group) {
        group.start_soon([&] { transfer(ends.here, ends.there, 2); });
        transfer(ends.there, ends.here, 3);
    });
    close_both_at_once(ends);
}

void expect_end(byte_receive_stream& of) {
    std::array<char, 8> space;
    for (int time = 0; time < 2; ++time) {
        expect_of_stream(of.receive_some(as_buffer(space)) == 0,
                         "at the end receive_some() gives 0");
        expect_failure<end_of_stream>([&] { of.receive(); },
                                      "at the end receive() throws, each time");
    }
}

void check_end_by_close(byte_stream_ends ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            ends.there.send("last words");
            ends.there.close();
        });
        bytes heard;
        for (bytes const& chunk : ends.here)
            heard += chunk;
        expect_of_stream(heard == "last words", "what was sent before the end arrives before it");
        expect_end(ends.here);
        ends.here.close();
    });
}

// Which of the two is left open: a stream that is made of two has closed one of them.
void expect_send_fails(byte_send_stream& to) {
    try {
        to.send("x");
    } catch (broken_resource_error const&) {
        return;
    } catch (closed_resource_error const&) {
        return;
    }
    refuse_stream("nothing can be sent after send_eof()");
}

void check_half_close(byte_stream_ends ends) {
    ends.here.send_eof();
    ends.here.send_eof();
    expect_end(ends.there);
    expect_send_fails(ends.here);
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.there.send("still"); });
        expect_of_stream(receive_exactly(ends.here, 5, 5) == "still",
                         "after send_eof() the other direction goes on");
    });
    close_both_at_once(ends);
}

void expect_closed(byte_stream& stream) {
    stream.close();
    expect_failure<closed_resource_error>([&] { stream.receive(); },
                                          "what is closed does not receive");
    expect_failure<closed_resource_error>([&] { stream.send("x"); },
                                          "what is closed does not send");
}

void check_closed(byte_stream_ends ends) {
    close_both_at_once(ends);
    expect_closed(ends.here);
    expect_closed(ends.there);
}

void check_close_wakes(byte_stream_ends ends, bool forcefully) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_failure<closed_resource_error>([&] { ends.here.receive(); },
                                                  "close() wakes whoever receives");
        });
        wait_all_tasks_blocked();
        if (forcefully)
            close_forcefully(ends.here);
        else
            ends.here.close();
    });
    expect_closed(ends.here);
    drop(ends.there);
}

void check_close_wakes_sender(byte_stream_ends ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_failure<closed_resource_error>([&] { ends.here.send(bytes(too_much, 'x')); },
                                                  "close() wakes whoever sends");
        });
        wait_all_tasks_blocked();
        ends.here.close();
    });
    drop(ends.there);
}

void check_peer_gone(byte_stream_ends ends) {
    drop(ends.there);
    expect_failure<broken_resource_error>(
        [&] {
            for (std::size_t sent = 0; sent < too_much; sent += much)
                ends.here.send(bytes(much, 'x'));
        },
        "sending to somebody who is gone breaks");
    drop(ends.here);
}

void check_cancelled_before(byte_stream_ends ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.there.send("kept"); });
        expect_of_stream(!move_on_at(time_point::min(), [&] { ends.here.receive(); }),
                         "receive() is a cancellation point");
        expect_of_stream(!move_on_at(time_point::min(), [&] { ends.here.send("never sent"); }),
                         "send() is a cancellation point");
        expect_of_stream(receive_exactly(ends.here, 4, 4) == "kept",
                         "a receive() that is cancelled takes nothing");
    });
    drop(ends);
}

void check_cancelled_receive(byte_stream_ends ends) {
    cancel_scope scope;
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_of_stream(!scope.run([&] { ends.here.receive(); }),
                             "receive() is cancelled while it waits");
        });
        wait_all_tasks_blocked();
        scope.cancel();
    });
    transfer(ends.there, ends.here, 4);
    close_both_at_once(ends);
}

void check_one_receiver(byte_stream_ends ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_of_stream(ends.here.receive(1) == "x",
                             "a second receiver does not harm the first");
        });
        wait_all_tasks_blocked();
        expect_failure<busy_resource_error>([&] { ends.here.receive(); },
                                            "a second receiver is turned away");
        ends.there.send("x");
    });
    drop(ends);
}

void check_one_sender(byte_stream_ends ends) {
    bytes const data = pattern(too_much, 5);
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.here.send(data); });
        wait_all_tasks_blocked();
        expect_failure<busy_resource_error>([&] { ends.here.send("x"); },
                                            "a second sender is turned away");
        expect_of_stream(receive_exactly(ends.there, too_much, 65536) == data,
                         "a second sender does not harm the first");
    });
    drop(ends);
}

void check_one_end(std::function<byte_stream_ends()> const& make, byte_stream_traits traits) {
    check_misuse(make());
    check_small(make());
    check_much(make());
    check_end_by_close(make());
    if (traits.half_close) check_half_close(make());
    check_closed(make());
    check_close_wakes(make(), false);
    check_close_wakes(make(), true);
    check_peer_gone(make());
    check_cancelled_before(make());
    check_cancelled_receive(make());
    if (traits.one_task_a_direction) check_one_receiver(make());
    if (!traits.send_waits) return;
    check_close_wakes_sender(make());
    if (traits.one_task_a_direction) check_one_sender(make());
}

} // namespace

} // namespace detail

void check_byte_stream(std::function<byte_stream_ends()> const& make, byte_stream_traits traits) {
    detail::check_stream_by([&] { detail::check_one_end(make, traits); });
    auto const swapped = [&make] {
        byte_stream_ends ends = make();
        return byte_stream_ends{std::move(ends.there), std::move(ends.here)};
    };
    detail::check_stream_by([&] { detail::check_one_end(swapped, traits); });
    if (traits.half_close) return;
    byte_stream_ends ends = make();
    detail::expect_failure<std::logic_error>([&] { ends.here.send_eof(); },
                                             "a stream without half-close refuses send_eof()");
    detail::drop(ends);
}

} // namespace weft
