#include <weft/sync/resource_guard.hpp>

#include "each_runtime.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <atomic>
#include <string>

TEST_SUITE_BEGIN("sync.resource_guard");

TEST_CASE("RG1: a second user is turned away, with the action in the message") {
    weft::resource_guard guard("reading from");
    {
        auto const inside = guard.enter();
        std::string message;
        try {
            auto const second = guard.enter();
        } catch (weft::busy_resource_error const& error) {
            message = error.what();
        }
        CHECK(message == "another task is already reading from this resource");
    }
    auto const inside = guard.enter();
}

TEST_CASE("RG2: what one user wrote is seen by the next, on any worker") {
    on_each_runtime([] {
        weft::resource_guard guard;
        int value = 0;
        std::atomic<int> entered = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 4; ++task)
                group.start_soon([&] {
                    for (int step = 0; step < 50; ++step) {
                        try {
                            auto const inside = guard.enter();
                            ++value;
                            weft::lowlevel::checkpoint();
                            ++entered;
                        } catch (weft::busy_resource_error const&) {
                            weft::lowlevel::checkpoint();
                        }
                    }
                });
        });
        CHECK(value == entered);
    });
}

TEST_SUITE_END();
