#include "conformance_checks.hpp"

#include <weft/io/bytes.hpp>

#include <array>
#include <stdexcept>

namespace weft::detail {

namespace {

void expect_end(byte_receive_stream& of) {
    std::array<char, 8> space;
    for (int time = 0; time < 2; ++time) {
        expect_of_stream(of.receive_some(as_buffer(space)) == 0,
                         "at the end receive_some() gives 0");
        expect_failure<end_of_stream>([&] { of.receive(); },
                                      "at the end receive() throws, each time");
    }
}

void expect_sending_broken(byte_send_stream& to) {
    for (int time = 0; time < 2; ++time)
        expect_failure<broken_resource_error>([&] { to.send("x"); },
                                              "what is broken does not send, each time");
}

void expect_receiving_broken(byte_receive_stream& from) {
    std::array<char, 8> space;
    for (int time = 0; time < 2; ++time) {
        expect_failure<broken_resource_error>([&] { from.receive_some(as_buffer(space)); },
                                              "that it is broken is no end for receive_some()");
        expect_failure<broken_resource_error>([&] { from.receive(); },
                                              "what is broken does not receive, each time");
    }
}

void expect_closed(byte_stream& stream) {
    expect_failure<closed_resource_error>([&] { stream.receive(); },
                                          "what is closed does not receive");
    expect_failure<closed_resource_error>([&] { stream.send("x"); },
                                          "what is closed does not send");
}

void check_waking(byte_stream_ends& ends, void (*close)(resource&)) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_failure<closed_resource_error>([&] { ends.here.receive(); },
                                                  "close() wakes whoever receives");
        });
        wait_all_tasks_blocked();
        close(ends.here);
    });
    ends.here.close();
    expect_closed(ends.here);
    drop(ends.there);
}

} // namespace

void close_both_at_once(byte_stream_ends& ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.here.close(); });
        ends.there.close();
    });
}

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

void check_end_by_close(byte_stream_ends& ends) {
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

void check_half_close(byte_stream_ends& ends) {
    ends.here.send_eof();
    ends.here.send_eof();
    expect_end(ends.there);
    expect_closed_or_broken([&] { ends.here.send("x"); }, "nothing can be sent after send_eof()");
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.there.send("still"); });
        expect_of_stream(receive_exactly(ends.here, 5, 5) == "still",
                         "after send_eof() the other direction goes on");
    });
    close_both_at_once(ends);
}

void check_no_half_close(byte_stream_ends& ends) {
    expect_failure<std::logic_error>([&] { ends.here.send_eof(); },
                                     "a stream without half-close refuses send_eof()");
    drop(ends);
}

void check_closed(byte_stream_ends& ends) {
    close_both_at_once(ends);
    for (byte_stream* each : {&ends.here, &ends.there}) {
        each->close();
        expect_closed(*each);
    }
}

void check_eof_of_closed(byte_stream_ends& ends) {
    close_both_at_once(ends);
    expect_failure<closed_resource_error>([&] { ends.here.send_eof(); },
                                          "what is closed refuses send_eof()");
}

void check_close_wakes(byte_stream_ends& ends) {
    check_waking(ends, [](resource& stream) { stream.close(); });
}

void check_close_forcefully_wakes(byte_stream_ends& ends) { check_waking(ends, close_forcefully); }

void check_close_wakes_sender(byte_stream_ends& ends) {
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

void check_peer_gone(byte_stream_ends& ends) {
    drop(ends.there);
    expect_failure<broken_resource_error>(
        [&] {
            for (std::size_t sent = 0; sent < too_much; sent += much)
                ends.here.send(bytes(much, 'x'));
        },
        "sending to somebody who is gone breaks");
    expect_sending_broken(ends.here);
    drop(ends.here);
}

void check_broken(byte_stream_ends& ends) {
    if (!ends.break_here) return drop(ends);
    ends.break_here();
    expect_receiving_broken(ends.here);
    expect_sending_broken(ends.here);
    expect_receiving_broken(ends.here);
    drop(ends.here);
    expect_closed(ends.here);
    drop(ends.there);
}

} // namespace weft::detail
