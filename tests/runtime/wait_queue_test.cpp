#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/wait_queue.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

// A counter of tokens, handed to the one that waits longest: the least that a primitive does.
class hand_over {
public:
    void give() {
        queue_.lock();
        detail::wait_node* const first = queue_.claim_front();
        if (first == nullptr) ++queue_.state;
        queue_.unlock();
        if (first != nullptr) detail::wait_queue::deliver(*first);
    }
    void take() {
        detail::fiber& self = detail::enter_blocking_call("take");
        detail::parking wait("take");
        detail::wait_node node(wait);
        queue_.lock();
        if (queue_.state > 0) {
            if (wait.withdraw()) {
                --queue_.state;
                queue_.unlock();
                return;
            }
            queue_.unlock(); // a canceller was first
            detail::throw_cancelled(self);
        }
        queue_.waiters.push_back(node);
        queue_.unlock();
        detail::wake_reason const why = wait.suspend();
        if (why == detail::wake_reason::event) return;
        queue_.leave(node);
        detail::throw_cancelled(self);
    }
    std::uint32_t tokens() {
        queue_.lock();
        std::uint32_t const count = queue_.state;
        queue_.unlock();
        return count;
    }

private:
    detail::wait_queue queue_;
};

} // namespace

TEST_SUITE("runtime.wait_queue") {
    TEST_CASE("M11: a wait list is a queue from which any node can leave") {
        run_sim(0, [] {
            detail::parking wait("test");
            detail::wait_list list;
            detail::wait_node first(wait), second(wait), third(wait);
            check(list.empty() && list.pop_front() == nullptr, "empty");
            list.remove(first); // not linked: nothing happens
            list.push_back(first);
            list.push_back(second);
            list.push_back(third);
            check(list.size() == 3 && list.front() == &first, "three");
            list.remove(second);
            check(list.pop_front() == &first, "the first");
            list.push_back(first);
            list.remove(third);
            check(list.pop_front() == &first && list.empty(), "the first again");
            wait.withdraw();
        });
    }

    TEST_CASE("M11: tokens go to those who wait, in the order in which they came") {
        run_test([] {
            hand_over tokens;
            std::vector<int> order;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 5; ++task) {
                    group.start_soon([&, task] {
                        tokens.take();
                        order.push_back(task);
                        tokens.give();
                    });
                    wait_all_tasks_blocked();
                }
                tokens.give();
            });
            check(order == std::vector<int>{0, 1, 2, 3, 4}, "in order");
            check(tokens.tokens() == 1, "one is left");
        });
    }

    TEST_CASE("M3, M16: no token is lost or doubled while takers are being cancelled") {
        run_test({.times = 20}, [] {
            hand_over tokens;
            std::atomic<int> taken{0};
            constexpr int given = 40;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 60; ++task)
                    group.start_soon([&, task] {
                        cancel_scope scope;
                        with_task_group([&](task_group& inner) {
                            if (task % 3 != 0) inner.start_soon([&] { scope.cancel(); });
                            else inner.start_soon([&] { sleep(1ms), scope.cancel(); });
                            if (scope.run([&] { tokens.take(); })) ++taken;
                        });
                    });
                for (int token = 0; token < given; ++token) {
                    tokens.give();
                    if (token % 4 == 0) lowlevel::checkpoint();
                }
            });
            check(taken + int(tokens.tokens()) == given, "taken or left");
        });
    }

    TEST_CASE("M3: take is all or nothing at every suspension") {
        cancel_at_every_suspension_point([](attempt& at) {
            hand_over tokens;
            int taken = 0;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    lowlevel::checkpoint();
                    tokens.give();
                });
                if (at.run([&] { tokens.take(); })) ++taken;
            });
            check(taken + int(tokens.tokens()) == 1, "taken or left");
        });
    }

    TEST_CASE("M14: OS threads give, tasks take") {
        run_test({.times = 5}, [] {
            hand_over tokens;
            std::vector<std::thread> threads;
            for (int thread = 0; thread < 3; ++thread)
                threads.emplace_back([&] {
                    for (int token = 0; token < 100; ++token)
                        tokens.give();
                });
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&] {
                        for (int time = 0; time < 30; ++time)
                            tokens.take();
                    });
            });
            for (std::thread& thread : threads)
                thread.join();
            check(tokens.tokens() == 0, "none is left");
        });
    }

    TEST_CASE("M15: wake_all lets waiters destroy the queue at once") {
        run_test({.times = 10}, [] {
            for (int time = 0; time < 50; ++time) {
                auto opened = std::make_unique<gate>();
                gate& shared = *opened;
                with_task_group([&](task_group& group) {
                    group.start_soon([&] { shared.open(); });
                    shared.wait();
                    opened.reset();
                });
            }
        });
    }
}
