#include "conformance_checks.hpp"

#include <weft/runtime/lowlevel.hpp>

#include <string_view>

namespace weft::detail {

void cancel_call(std::function<void()> const& call, int turns,
                 std::function<void()> const& once_it_waits) {
    cancel_scope scope;
    with_task_group([&](task_group& group) {
        group.start_soon([&] { scope.run(call); });
        if (once_it_waits) {
            wait_all_tasks_blocked();
            once_it_waits();
        }
        for (int turn = 0; turn < turns; ++turn)
            lowlevel::checkpoint();
        scope.cancel();
    });
}

namespace {

// Cancels a receive() while data comes, or is there already: it gives that, or the next one does.
void cancel_receive(byte_stream_ends& ends, int turns, bool waits) {
    bytes got;
    with_task_group([&](task_group& group) {
        auto const send = [&] { group.start_soon([&] { ends.there.send("x12more"); }); };
        if (!waits) {
            send();
            expect_of_stream(ends.here.receive(1) == "x", "octets arrive in order");
        }
        cancel_call([&] { got = ends.here.receive(1); }, turns,
                    waits ? std::function<void()>(send) : nullptr);
        bytes const expected = waits ? "x12" : "12";
        got += receive_exactly(ends.here, expected.size() - got.size(), 1);
        expect_of_stream(got == expected, "a receive() that is cancelled takes nothing");
        receive_exactly(ends.here, 4, 4); // where octets are lost, it is not got that far
    });
}

} // namespace

void check_cancelled_before(byte_stream_ends& ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.there.send("xkept, all"); });
        expect_of_stream(ends.here.receive(1) == "x", "octets arrive in order");
        for (int time = 0; time < 2; ++time)
            expect_of_stream(!move_on_at(time_point::min(), [&] { ends.here.receive(1); }),
                             "receive() is a cancellation point, also when there is data");
        for (char const* const part : {"kept,", " all"}) // if some are lost, no end is waited for
            expect_of_stream(receive_exactly(ends.here, std::string_view(part).size(), 5) == part,
                             "a receive() that is cancelled takes nothing");
    });
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            bytes_view const parts[] = {"never ", "sent"};
            expect_of_stream(!move_on_at(time_point::min(), [&] { ends.here.send("never sent"); }),
                             "send() is a cancellation point");
            expect_of_stream(!move_on_at(time_point::min(), [&] { ends.here.send(parts); }),
                             "send() of parts is a cancellation point");
            ends.here.send("sent");
        });
        expect_of_stream(receive_exactly(ends.there, 4, 4) == "sent",
                         "a send() that is cancelled before it begins sends nothing");
    });
    drop(ends);
}

void check_cancelled_receive(byte_stream_ends& ends) {
    bool is_through = false;
    auto const receive = [&] {
        ends.here.receive();
        is_through = true;
    };
    cancel_call(receive, 0, [] {});
    expect_of_stream(!is_through, "receive() is cancelled while it waits");
    transfer(ends.there, ends.here, 4);
    close_both_at_once(ends);
}

void check_cancelled_with_data(byte_stream_ends& ends) {
    for (int turns = 0; turns < most_turns; ++turns) {
        cancel_receive(ends, turns, false);
        cancel_receive(ends, turns, true);
    }
    drop(ends);
}

void check_cancelled_send(byte_stream_ends& ends) {
    bool is_through = false;
    auto const send = [&] {
        ends.here.send(bytes(too_much, 'x'));
        is_through = true;
    };
    cancel_call(send, 0, [] {});
    expect_of_stream(!is_through, "send() is cancelled while it waits");
    drop(ends);
}

} // namespace weft::detail
