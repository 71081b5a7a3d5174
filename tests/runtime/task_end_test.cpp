#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/context_var.hpp>
#include <weft/runtime/detail/group_state.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

// What is destroyed when a task ends: its value, its context, what it said with started(). Their destructors may wait
// and may be waited for, so each runs in a task, and before whoever counts on it goes on.

namespace {

// Calls when it is destroyed, but not when it was moved from.
class at_destruction {
public:
    explicit at_destruction(std::function<void()> call) : call_(std::move(call)) {}
    at_destruction(at_destruction&& other) noexcept : call_(std::exchange(other.call_, nullptr)) {}
    at_destruction& operator=(at_destruction&&) = delete;
    ~at_destruction() {
        if (call_) call_();
    }

private:
    std::function<void()> call_;
};

bool is_listed(std::string const& name) {
    auto const tasks = get_running_tasks();
    return std::any_of(tasks.begin(), tasks.end(), [&](task_info const& each) { return each.name == name; });
}

} // namespace

TEST_SUITE_BEGIN("runtime.task_end");

TEST_CASE("NX1: a value that nobody has a handle to is gone before another task of the group waits for that") {
    run_test([] {
        gate gone;
        with_task_group([&](task_group& group) {
            group.create_task([&] { return at_destruction([&] { gone.open(); }); });
            group.start_soon([&] { gone.wait(); });
        });
    });
}

TEST_CASE("NX1: a value that nobody has a handle to is destroyed by its task, and its destructor may wait") {
    run_test([] {
        std::string by;
        gate dropped;
        with_task_group([&](task_group& group) {
            group.create_task({.name = "made it"}, [&] {
                dropped.wait();
                return at_destruction([&] {
                    weft::sleep(1ms);
                    by = get_current_task().name;
                });
            });
            dropped.open();
        });
        check(by == "made it", by.c_str());
    });
}

TEST_CASE("NX1: the last handle takes the value with it, whichever thread drops it at whatever moment") {
    run_test({.workers = {2, 4}, .seeds = {0, 1, 2}, .times = 20}, [] {
        std::atomic<int> destroyed = 0;
        with_task_group([&](task_group& group) {
            for (int task = 0; task < 10; ++task) {
                auto handle = group.create_task([&] { return at_destruction([&] { ++destroyed; }); });
                group.start_soon([copy = handle] { copy.done(); });
                group.start_soon([taken = std::move(handle)] { taken.done(); });
            }
        });
        check(destroyed == 10, "each once, and before the group has ended");
    });
}

TEST_CASE("TI2, NX1: who looks at a task does not keep its value") {
    run_test([] {
        bool destroyed = false;
        std::optional<detail::task_look> look;
        with_task_group([&](task_group& group) {
            group.create_task([&] {
                look.emplace(*detail::current_fiber());
                return at_destruction([&] { destroyed = true; });
            });
        });
        check(destroyed && look->info().state == task_state::finished, "gone, and the task can be looked at");
    });
}

TEST_CASE("RV4: the first task's context is destroyed before run() ends, though a destructor waits") {
    context_var<std::shared_ptr<at_destruction>> variable("closes", std::nullopt);
    for (char const* const backend : {"epoll", "sim"}) {
        bool ended = false;
        run({.backend = backend, .workers = 2}, [&] {
            variable.set(std::make_shared<at_destruction>([&] {
                weft::sleep(5ms);
                ended = true;
            }));
        });
        CHECK(ended);
    }
}

TEST_CASE("S13: what a task said with started() is destroyed in a task, though it waits") {
    struct copied { // start() gives a copy, so one is left
        std::atomic<bool>* waits;
        explicit copied(std::atomic<bool>* flag) : waits(flag) {}
        copied(copied const&) = default;
        ~copied() {
            if (*waits) shielded([] { weft::sleep(1ms); });
        }
    };
    for (bool const fails : {false, true})
        run_test([&] {
            std::atomic<bool> waits = false;
            try {
                with_task_group([&](task_group& group) {
                    gate end;
                    auto const child = [&](task_status<copied>& status) {
                        status.started(copied(&waits));
                        end.wait();
                        waits = true;
                        if (fails) throw std::runtime_error("after started()");
                    };
                    group.start<copied>({.name = "says started"}, child);
                    end.open();
                    while (!waits)
                        weft::sleep(1ms);
                });
            } catch (exception_group const&) {
                check(fails, "only where it fails");
            }
            waits = false;
            check(!is_listed("says started"), "it has ended");
        });
}

TEST_SUITE_END();
