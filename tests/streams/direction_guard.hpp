#pragma once

#include "support/run_test.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/byte_stream.hpp>

namespace weft::test {

/// X8: who comes second is turned away before it could wait or be cancelled; whichever way a call
/// ends, the next one may begin; and close() does not wait for its turn. R4: afterwards nobody is
/// told that it is busy. Closes the first end.
inline void check_direction_guard(byte_stream& here, byte_stream& there) {
    cancel_scope first;
    with_task_group([&](task_group& group) {
        group.start_soon([&] { check(!first.run([&] { here.receive(); }), "cut short"); });
        wait_all_tasks_blocked();
        for (int time = 0; time < 2; ++time) {
            cancel_scope second;
            second.cancel();
            bool refused = false;
            bool const through = second.run([&] {
                check_throws<busy_resource_error>([&] { here.receive(); }, "two at once");
                refused = true;
            });
            check(through && refused, "turned away, not cancelled");
        }
        first.cancel();
    });
    check(!move_on_at(time_point::min(), [&] { here.receive(); }), "cancelled on entry");
    there.send("x");
    check(here.receive() == "x", "the guard is free after all that");
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            check_throws<closed_resource_error>([&] { here.receive(); }, "closed meanwhile");
        });
        wait_all_tasks_blocked();
        here.close();
        check_throws<closed_resource_error>([&] { here.receive(); }, "closed, not busy");
    });
    check_throws<closed_resource_error>([&] { here.receive(); }, "closed before");
}

} // namespace weft::test
