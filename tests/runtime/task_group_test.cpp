#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <vector>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {
void one_function() { std::puts("one"); }
void other_function() { std::puts("other"); }


struct ordinary : std::runtime_error {
    explicit ordinary(int which = 0) : std::runtime_error("ordinary"), number(which) {}
    int number;
};

template <class Body> std::optional<exception_group> group_from(Body&& body) {
    try {
        body();
    } catch (exception_group const& group) {
        return group;
    }
    return {};
}

void named_function() {}

template <class Group, class F>
concept spawnable = requires(Group& group, F function) { group.start_soon(function); };
template <class Group, class F>
concept startable = requires(Group& group, F function) { group.start(function); };

} // namespace

TEST_SUITE("runtime.task_group") {

    TEST_CASE("G1: a group is entered once") {
        run_test([] {
            task_group group;
            group.run([&] {
                check_throws<std::logic_error>([&] { group.run([] {}); }, "while it is open");
                lowlevel::checkpoint();
            });
            check_throws<std::logic_error>([&] { group.run([] {}); }, "after it was left");
            lowlevel::checkpoint();
        });
        CHECK_THROWS_AS(with_task_group([] {}), no_event_loop_error);
        static_assert(!std::is_copy_constructible_v<task_group>);
        static_assert(!std::is_move_constructible_v<task_group>);
    }

    TEST_CASE("G2: a group that is not open takes no tasks, and lets go of the callable") {
        run_test([] {
            auto const token = std::make_shared<int>();
            bool ran = false;
            task_group group;
            auto const refuses = [&](char const* when) {
                check_throws<std::logic_error>([&] { group.start_soon([token, &ran] { ran = true; }); },
                                               when);
                check_throws<std::logic_error>([&] { group.create_task([token, &ran] { ran = true; }); },
                                               when);
                check_throws<std::logic_error>(
                    [&] {
                        group.start([token, &ran](task_status<>& status) {
                            ran = true;
                            status.started();
                        });
                    },
                    when);
            };
            refuses("before it was entered");
            group.run([] {});
            refuses("after it was left");
            CHECK(token.use_count() == 1);
            CHECK_FALSE(ran);
        });
    }

    TEST_CASE("G2: a group whose run is over takes no tasks from a thread outside") {
        task_group group;
        CHECK_THROWS_AS(group.start_soon([] {}), std::logic_error);
        run({.workers = 2}, [&] { group.run([] {}); });
        CHECK_THROWS_AS(group.start_soon([] {}), std::logic_error);
        CHECK_THROWS_AS(group.create_task([] {}), std::logic_error);
        run({.workers = 1}, [&] {
            check_throws<std::logic_error>([&] { group.start_soon([] {}); }, "in another run");
        });
    }

    TEST_CASE("G3: children, unrelated tasks and threads may spawn, also while the host waits in exit") {
        run_test([] {
            std::atomic<int> ran{0};
            std::optional<std::thread> thread;
            task_group other;
            gate go;
            other.run([&] {
                with_task_group([&](task_group& group) {
                    group.start_soon([&] {
                        group.start_soon([&] {
                            group.start_soon([&] { ++ran; });
                            ++ran;
                        });
                        ++ran;
                    });
                    other.start_soon([&] { group.start_soon([&] { ++ran; }); });
                    group.start_soon([&] {
                        lowlevel::checkpoint();
                        thread.emplace([&] {
                            group.start_soon([&] {
                                ++ran;
                                go.open();
                            });
                        });
                        go.wait();
                    });
                    wait_all_tasks_blocked();
                });
            });
            thread->join();
            CHECK(ran == 5);
        });
    }

    TEST_CASE("G3: a cancelled group takes tasks") {
        run_test([] {
            bool ran = false;
            with_task_group([&](task_group& group) {
                group.cancel();
                group.start_soon([&] { ran = true; });
            });
            CHECK(ran);
        });
    }

    TEST_CASE("G3: a spawn that races with the end of the group is waited for or refused") {
        run_test({.workers = {2, 4}, .seeds = {}, .times = 100}, [] {
            std::atomic<int> accepted{0};
            std::atomic<int> ran{0};
            std::atomic<bool> open{false};
            task_group group;
            std::thread spawner([&] {
                while (!open) {}
                try {
                    for (;;) {
                        group.start_soon([&] { ++ran; });
                        ++accepted;
                    }
                } catch (std::logic_error const&) { // closed
                }
            });
            group.run([&] {
                open = true;
                lowlevel::checkpoint();
            });
            int const seen = ran;
            spawner.join();
            CHECK(accepted == ran);
            CHECK(seen == ran);
        });
    }

    TEST_CASE("G4: start_soon does not run the child; children start in the order of spawning") {
        run_sim(0, [] {
            std::vector<int> order;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&order, task] { order.push_back(task); });
                CHECK(order.empty());
            });
            CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
        });
    }

    TEST_CASE("G4: callable and arguments are decay-copied; std::ref shares; move-only types work") {
        run_test([] {
            int shared = 0;
            std::atomic<int> sum{0};
            with_task_group([&](task_group& group) {
                int local = 5;
                group.start_soon([&](int given) { sum += given; }, local);
                group.start_soon([](int& given) { given = 7; }, std::ref(shared));
                group.start_soon([&](std::unique_ptr<int> given) { sum += *given; },
                                 std::make_unique<int>(10));
                group.start_soon([&sum, owned = std::make_unique<int>(100)] { sum += *owned; });
                struct large {
                    char bytes[1000] = {};
                } const big;
                group.start_soon([&sum, big] { sum += int(sizeof big.bytes); });
                group.start_soon(named_function);
                local = 0;
            });
            CHECK(sum == 1115);
            CHECK(shared == 7);
        });
    }

    TEST_CASE("G4: callables of every size and alignment run with their bytes intact") {
        run_test([] {
            std::atomic<int> good{0};
            with_task_group([&](task_group& group) {
                struct alignas(64) aligned {
                    int value = 3;
                } const strict;
                group.start_soon([&good, strict] {
                    if (reinterpret_cast<std::uintptr_t>(&strict) % 64 == 0 && strict.value == 3) ++good;
                });
                group.start_soon([&good, a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8] {
                    if (a + b + c + d + e + f + g + h == 36) ++good;
                });
                group.start_soon([&good, text = std::string(1000, 'x')] {
                    if (text.size() == 1000) ++good;
                });
            });
            CHECK(good == 3);
        });
    }

    TEST_CASE("G4: callables and values with more than a cache line's alignment are where they must be") {
        struct alignas(256) page_part {
            char bytes[256] = {};
        };
        struct alignas(4096) page {
            char bytes[4096] = {};
        };
        run_test([] {
            std::atomic<int> astray{0};
            auto const look_at = [&](void const* place, std::uintptr_t alignment) {
                void const* volatile where = place; // not what the type promises
                if (reinterpret_cast<std::uintptr_t>(where) % alignment != 0) ++astray;
            };
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 10; ++task) {
                    group.start_soon([look_at, part = page_part{}] { look_at(&part, 256); });
                    group.start_soon([look_at, whole = page{}] { look_at(&whole, 4096); });
                    group.start([look_at, part = page_part{}](task_status<>& status) {
                        look_at(&part, 256);
                        status.started();
                    });
                    page const made = group.create_task([] { return page{{'x'}}; }).wait();
                    check(made.bytes[0] == 'x', "its value");
                }
            });
            check(astray == 0, "each where its type wants it");
        });
    }

    TEST_CASE("G6: the exit waits for all children") {
        run_test([] {
            std::atomic<int> ended{0};
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 20; ++task)
                    group.start_soon([&, task] {
                        weft::sleep(std::chrono::microseconds(task * 20));
                        ++ended;
                    });
            });
            CHECK(ended == 20);
        });
    }

    TEST_CASE("G6: leaving an empty group lets others run once") {
        run_sim(0, [] {
            with_task_group([](task_group& group) {
                bool ran = false;
                group.start_soon([&] { ran = true; });
                with_task_group([] {});
                CHECK(ran);
            });
        });
    }

    TEST_CASE("G6: leaving an empty group is no cancellation point") {
        run_test([] {
            cancel_scope scope;
            bool reached = false;
            CHECK(scope.run([&] {
                scope.cancel();
                with_task_group([] {});
                reached = true;
            }));
            CHECK(reached);
        });
    }

    TEST_CASE("G6: an exception that leaves the body cancels the children") {
        run_test([] {
            std::atomic<int> cut{0};
            auto const errors = group_from([&] {
                with_task_group([&](task_group& group) {
                    for (int task = 0; task < 5; ++task)
                        group.start_soon([&] {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) {
                                ++cut;
                                throw;
                            }
                        });
                    wait_all_tasks_blocked();
                    throw ordinary();
                });
            });
            CHECK(cut == 5);
            check(errors.has_value(), "a group");
            CHECK(errors->exceptions().size() == 1);
            CHECK(errors->contains<ordinary>());
        });
    }

    TEST_CASE("G7, G8: a host cancelled while it waits goes on waiting; the group itself is not cancelled") {
        run_test([] {
            cancel_scope outer;
            std::atomic<bool> child_done{false};
            bool called = true;
            with_task_group([&](task_group& around) {
                around.start_soon([&] {
                    CHECK(outer.run([&] {
                        task_group group;
                        group.run([&] {
                            group.start_soon([&] {
                                shielded([&] {
                                    weft::sleep(2ms);
                                    child_done = true;
                                });
                            });
                        });
                        CHECK(child_done);
                        called = group.cancel_scope().cancel_called();
                    }));
                });
                wait_all_tasks_blocked();
                outer.cancel();
            });
            CHECK(child_done);
            CHECK_FALSE(called);
        });
    }

    TEST_CASE("G9: the exit waits for a shielded child without a limit of its own") {
        run_test([] {
            bool done = false;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    shielded([&] {
                        for (int time = 0; time < 5; ++time)
                            weft::sleep(500us);
                        done = true;
                    });
                });
                group.cancel();
            });
            CHECK(done);
        });
    }

    TEST_CASE("G23: a child that returns normally does nothing to its siblings") {
        run_test([] {
            std::atomic<int> done{0};
            with_task_group([&](task_group& group) {
                group.start_soon([&] { return 5; });
                group.start_soon([&] {
                    weft::sleep(1ms);
                    ++done;
                });
            });
            CHECK(done == 1);
        });
    }

    TEST_CASE("G24: a task's name is the given one, or its callable's") {
        run_test([] {
            with_task_group([](task_group& group) {
                group.start_soon({.name = "given"}, [] { CHECK(get_current_task().name == "given"); });
                auto const handle = group.create_task([] {});
                CHECK(handle.info().name.find("lambda") != std::string::npos);
                auto const of_function = group.create_task(&wait_all_tasks_blocked);
                CHECK(of_function.info().name.find("wait_all_tasks_blocked") != std::string::npos);
            });
        });
    }

    TEST_CASE("G24: functions that have no symbol are told apart by where they are") {
        run_test([] {
            with_task_group([](task_group& group) {
                std::string const one = group.create_task(&one_function).info().name;
                std::string const other = group.create_task(&other_function).info().name;
                CHECK(one != other);
                CHECK(one.find("weft-test-runtime+0x") != std::string::npos);
            });
        });
    }

    TEST_CASE("G24: a child's parent is the host of its group, whoever spawned it") {
        run_test([] {
            std::uint64_t const host = get_current_task().id;
            CHECK_FALSE(get_current_task().parent_id.has_value());
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    CHECK(get_current_task().parent_id == host);
                    group.start_soon([&] { CHECK(get_current_task().parent_id == host); });
                });
            });
        });
    }

    TEST_CASE("G25: what cannot be called does not compile") {
        using one_short = decltype([](int) {});
        using not_told = decltype([] {});
        static_assert(spawnable<task_group, not_told> && !spawnable<task_group, int>);
        static_assert(!spawnable<task_group, one_short>);
        static_assert(!startable<task_group, not_told>);
    }

    TEST_CASE("G27: the callable and its arguments are gone when the group is left") {
        run_test([] {
            auto const token = std::make_shared<int>();
            with_task_group([&](task_group& group) {
                group.start_soon([token] { lowlevel::checkpoint(); });
                group.start_soon([](std::shared_ptr<int>) {}, token);
                group.start_soon([token] { sleep_forever(); });
                wait_all_tasks_blocked();
                CHECK(token.use_count() == 2);
                group.cancel();
            });
            CHECK(token.use_count() == 1);
            {
                auto const errors = group_from([&] {
                    with_task_group([&](task_group& group) {
                        group.start_soon([token] { throw token; });
                    });
                });
                CHECK(token.use_count() == 2);
            }
            CHECK(token.use_count() == 1);
        });
    }

    TEST_CASE("G30: the last child's end and the host's wait never miss each other") {
        run_test({.seeds = {0, 1}, .times = 20}, [] {
            for (int time = 0; time < 100; ++time) {
                std::atomic<int> ended{0};
                with_task_group([&](task_group& group) {
                    for (int task = 0; task < 3; ++task)
                        group.start_soon([&] { ++ended; });
                });
                check(ended == 3, "all have ended");
            }
        });
    }

    TEST_CASE("G6: a group cancelled at any suspension leaves no child behind") {
        cancel_at_every_suspension_point([](attempt& at) {
            std::atomic<int> begun{0};
            std::atomic<int> ended{0};
            struct end_counter {
                std::atomic<int>& ended;
                ~end_counter() { ++ended; }
            };
            auto const child = [&] {
                ++begun;
                end_counter const counts{ended};
                weft::sleep(1ms);
                lowlevel::checkpoint();
            };
            bool const finished = at.run([&] {
                with_task_group([&](task_group& group) {
                    group.start_soon(child);
                    group.start_soon([&] {
                        with_task_group([&](task_group& inner) {
                            inner.start_soon(child);
                            inner.start_soon(child);
                        });
                    });
                    lowlevel::checkpoint();
                });
            });
            check(begun == ended, "all children have ended");
            if (!at.cancelled()) check(finished && ended == 3, "all children ran");
        });
    }

    TEST_CASE("TR24: a child that cancels its group at once, before the spawner goes on, hangs nobody") {
        run_test({.times = 50}, [] {
            task_group group;
            group.run([&] {
                for (int task = 0; task < 10; ++task)
                    group.start_soon([&] {
                        group.cancel();
                        lowlevel::checkpoint();
                    });
                sleep_forever();
            });
            CHECK(group.cancel_scope().cancelled_caught());
        });
    }

    TEST_CASE("G6: a tree of groups ten deep and three wide ends") {
        run_test({.workers = {1, 2, 4}, .seeds = {0, 1}}, [] {
            std::atomic<int> leaves{0};
            struct tree {
                static void grow(std::atomic<int>& leaves, int depth) {
                    if (depth == 0) {
                        ++leaves;
                        return;
                    }
                    with_task_group([&](task_group& group) {
                        for (int child = 0; child < 3; ++child)
                            group.start_soon([&leaves, depth] { grow(leaves, depth - 1); });
                    });
                }
            };
            tree::grow(leaves, 7);
            CHECK(leaves == 2187);
        });
    }

    TEST_CASE("G5: scopes that the host enters inside the group are not those of the children") {
        run_test([] {
            bool child_went_on = false;
            gate spawned; // the child may begin after the host's body has ended
            with_task_group([&](task_group& group) {
                cancel_scope inside;
                bool const through = inside.run([&] {
                    group.start_soon([&] {
                        spawned.wait();
                        lowlevel::checkpoint();
                        child_went_on = true;
                    });
                    inside.cancel();
                    spawned.open();
                    sleep_forever();
                });
                check(!through, "the host is cut short");
            });
            check(child_went_on, "the child is not");
        });
    }

    TEST_CASE("NX13: task_group::cancel() is its scope's cancel(), with a reason") {
        run_test([] {
            with_task_group([](task_group& group) {
                group.cancel("no longer wanted");
                check(group.cancel_scope().cancel_called(), "the scope is cancelled");
                check(group.cancel_scope().cancel_reason() == "no longer wanted", "for that reason");
            });
        });
    }
}
