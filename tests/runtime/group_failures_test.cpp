#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <set>
#include <vector>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

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

} // namespace

TEST_SUITE("runtime.group_failures") {

    TEST_CASE("G10: the first failure cancels the siblings and the host") {
        run_test([] {
            std::atomic<int> cut{0};
            bool host_cut = false;
            auto const errors = group_from([&] {
                with_task_group([&](task_group& group) {
                    for (int task = 0; task < 3; ++task)
                        group.start_soon([&] {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) {
                                ++cut;
                                throw;
                            }
                        });
                    group.start_soon([] { throw ordinary(4); });
                    try {
                        sleep_forever();
                    } catch (cancelled const&) {
                        host_cut = true;
                        throw;
                    }
                });
            });
            CHECK(cut <= 3);
            CHECK(host_cut);
            check(errors.has_value(), "a group");
            CHECK(errors->exceptions().size() == 1);
        });
    }

    TEST_CASE("G11: whatever failed leaves as one group, also a single error; cancelled is no member") {
        run_test([] {
            auto const single = group_from([] {
                with_task_group([](task_group& group) { group.start_soon([] { throw ordinary(1); }); });
            });
            check(single.has_value(), "a group for one error");
            CHECK(single->exceptions().size() == 1);

            auto const several = group_from([] {
                with_task_group([](task_group& group) {
                    for (int number = 0; number < 4; ++number)
                        group.start_soon([number] {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) { // replaced
                                throw ordinary(number);
                            }
                        });
                    group.start_soon([] { sleep_forever(); });
                    wait_all_tasks_blocked();
                    throw ordinary(9);
                });
            });
            check(several.has_value(), "a group for several");
            CHECK(several->exceptions().size() == 5);
            CHECK_FALSE(several->contains<cancelled>());
            std::set<int> numbers;
            several->handle([&](ordinary const& error) { numbers.insert(error.number); });
            CHECK(numbers == std::set<int>{0, 1, 2, 3, 9});
        });
    }

    TEST_CASE("G11, G22: a nested group's failure becomes a nested member") {
        run_test([] {
            auto const outer = group_from([] {
                with_task_group([](task_group& group) {
                    group.start_soon([] {
                        with_task_group([](task_group& inner) {
                            inner.start_soon([] { throw ordinary(1); });
                        });
                    });
                });
            });
            check(outer.has_value(), "a group");
            CHECK(outer->exceptions().size() == 1);
            bool nested = false;
            try {
                std::rethrow_exception(outer->exceptions()[0]);
            } catch (exception_group const& inner) {
                nested = inner.exceptions().size() == 1 && inner.contains<ordinary>();
            }
            CHECK(nested);
        });
    }

    TEST_CASE("G12: a cancelled group without errors just ends; caught says whether anything was cut short") {
        run_test([] {
            task_group group;
            bool after = false;
            group.run([&] {
                group.start_soon([] { sleep_forever(); });
                group.cancel();
            });
            after = true;
            CHECK(after);
            CHECK(group.cancel_scope().cancelled_caught());

            task_group nothing_cut;
            nothing_cut.run([&] { nothing_cut.cancel(); });
            CHECK_FALSE(nothing_cut.cancel_scope().cancelled_caught());

            task_group swallowed; // every child ended normally
            swallowed.run([&] {
                swallowed.start_soon([] {
                    try {
                        sleep_forever();
                    } catch (cancelled const&) { // swallowed
                    }
                });
                wait_all_tasks_blocked();
                swallowed.cancel();
            });
            CHECK_FALSE(swallowed.cancel_scope().cancelled_caught());
        });
    }

    TEST_CASE("G12: errors win over cancellations") {
        run_test([] {
            auto const errors = group_from([] {
                with_task_group([](task_group& group) {
                    group.start_soon([] {
                        try {
                            sleep_forever();
                        } catch (cancelled const&) { // replaced
                            throw ordinary();
                        }
                    });
                    wait_all_tasks_blocked();
                    group.cancel();
                    sleep_forever();
                });
            });
            check(errors.has_value(), "the error");
            CHECK_FALSE(errors->contains<cancelled>());
        });
    }

    TEST_CASE("G13: a child that ends by a cancellation from around its group does not cancel the group") {
        run_test([] {
            cancel_scope outer;
            CHECK_FALSE(outer.run([&] {
                task_group group;
                group.run([&] {
                    auto const child = group.create_task([] { sleep_forever(); });
                    wait_all_tasks_blocked();
                    outer.cancel();
                    shielded([&] { wait_all_tasks_blocked(); });
                    CHECK(child.done());
                    CHECK_FALSE(group.cancel_scope().cancel_called());
                });
            }));
        });
    }

    TEST_CASE("G13: a cancellation that escapes from a child nobody cancelled cancels the group") {
        run_test([] {
            std::exception_ptr foreign;
            cancel_scope scope;
            scope.run([&] {
                scope.cancel();
                try {
                    lowlevel::checkpoint();
                } catch (cancelled const&) {
                    foreign = std::current_exception();
                }
            });
            std::atomic<bool> sibling_cut{false};
            task_group group;
            group.run([&] {
                group.start_soon([&] {
                    try {
                        sleep_forever();
                    } catch (cancelled const&) {
                        sibling_cut = true;
                        throw;
                    }
                });
                wait_all_tasks_blocked();
                group.start_soon([&] { std::rethrow_exception(foreign); });
            });
            CHECK(sibling_cut);
            CHECK(group.cancel_scope().cancel_called());
        });
    }

    TEST_CASE("G14: members stand in the order in which they failed, the host's first if it began") {
        run_sim(0, [] {
            auto const errors = group_from([] {
                with_task_group([](task_group& group) {
                    for (int number = 1; number < 4; ++number)
                        group.start_soon([number] {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) { // replaced
                                throw ordinary(number);
                            }
                        });
                    wait_all_tasks_blocked();
                    throw ordinary(0);
                });
            });
            std::vector<int> order;
            errors->handle([&](ordinary const& error) { order.push_back(error.number); });
            CHECK(order == std::vector<int>{0, 1, 2, 3});
        });
    }

    TEST_CASE("G15: an exception keeps its identity and what is nested in it") {
        run_test([] {
            std::atomic<void const*> thrown{nullptr};
            auto const errors = group_from([&] {
                with_task_group([&](task_group& outer) {
                    outer.start_soon([&] {
                        with_task_group([&](task_group& group) {
                            group.start_soon([&] {
                                try {
                                    throw ordinary(1);
                                } catch (ordinary const&) {
                                    try {
                                        std::throw_with_nested(ordinary(2));
                                    } catch (ordinary const& error) {
                                        thrown = &error;
                                        throw;
                                    }
                                }
                            });
                        });
                    });
                });
            });
            bool same = false;
            int cause = 0;
            errors->handle([&](ordinary const& error) {
                same = static_cast<void const*>(&error) == thrown;
                try {
                    std::rethrow_if_nested(error);
                } catch (ordinary const& nested) {
                    cause = nested.number;
                }
            });
            CHECK(same);
            CHECK(cause == 1);
        });
    }

    TEST_CASE("G16: anything that is thrown is collected") {
        run_test([] {
            auto const errors = group_from([] {
                with_task_group([](task_group& group) { group.start_soon([] { throw 42; }); });
            });
            check(errors.has_value(), "a group");
            CHECK(errors->contains<int>());
        });
    }

    TEST_CASE("G17: errors of the clean-up join the same group") {
        run_test([] {
            auto const errors = group_from([] {
                with_task_group([](task_group& group) {
                    group.start_soon([] {
                        try {
                            sleep_forever();
                        } catch (cancelled const&) { // replaced
                            throw std::out_of_range("while cleaning up");
                        }
                    });
                    wait_all_tasks_blocked();
                    group.start_soon([] { throw ordinary(); });
                });
            });
            check(errors.has_value(), "a group");
            CHECK(errors->exceptions().size() == 2);
            CHECK(errors->contains<ordinary>());
            CHECK(errors->contains<std::out_of_range>());
        });
    }

    TEST_CASE("G18: after a cancelled group the program goes on, a body with a value has none") {
        run_test([] {
            with_task_group([](task_group& group) {
                group.cancel();
                sleep_forever();
            });
            lowlevel::checkpoint();
            check_throws<task_cancelled>(
                [] {
                    with_task_group([](task_group& group) {
                        group.cancel();
                        return sleep_forever(), 1;
                    });
                },
                "no value");
            CHECK(with_task_group([](task_group& group) {
                      group.cancel();
                      return 6;
                  }) == 6);
            CHECK(*with_task_group([] { return std::make_unique<int>(8); }) == 8);
        });
    }

    TEST_CASE("G19: in a cancelled outer scope the exit passes one cancellation on") {
        run_test([] {
            cancel_scope outer;
            bool as_cancelled = false;
            CHECK_FALSE(outer.run([&] {
                try {
                    with_task_group([&](task_group& group) {
                        group.start_soon([] { sleep_forever(); });
                        group.start_soon([] { sleep_forever(); });
                        outer.cancel();
                    });
                } catch (cancelled const&) {
                    as_cancelled = true;
                    throw;
                }
            }));
            CHECK(as_cancelled);
        });
    }

    TEST_CASE("G20: shield and deadline of a group hold for its host and all children") {
        run_test([] {
            cancel_scope outer;
            std::atomic<int> survived{0};
            CHECK_FALSE(outer.run([&] {
                task_group group;
                group.cancel_scope().set_shield(true);
                group.run([&] {
                    outer.cancel();
                    group.start_soon([&] {
                        weft::sleep(1ms);
                        ++survived;
                    });
                    lowlevel::checkpoint();
                    ++survived;
                });
                lowlevel::checkpoint();
            }));
            CHECK(survived == 2);

            task_group timed;
            timed.run([&] {
                timed.cancel_scope().set_deadline(current_time() + 1ms);
                timed.start_soon([] { sleep_forever(); });
            });
            CHECK(timed.cancel_scope().cancelled_caught());
        });
    }

    TEST_CASE("G21: a child may cancel its own group and notices at its next checkpoint") {
        run_test([] {
            bool went_on = false;
            bool too_far = false;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    group.cancel();
                    went_on = true;
                    lowlevel::checkpoint();
                    too_far = true;
                });
            });
            CHECK(went_on);
            CHECK_FALSE(too_far);
        });
    }

    TEST_CASE("G31, G32: an error is never lost, whatever cancels the group meanwhile") {
        run_test({.times = 100}, [] {
            auto const errors = group_from([] {
                with_task_group([](task_group& group) {
                    group.start_soon([&] { group.cancel(); });
                    group.start_soon([] { throw ordinary(1); });
                    group.start_soon([] { lowlevel::checkpoint(); });
                });
            });
            check(errors.has_value(), "the error");
            CHECK(errors->exceptions().size() == 1);
        });
    }

    TEST_CASE("G14, G31: of many that fail at once, on all workers, each error is there once") {
        run_test({.times = 30}, [] {
            constexpr int failing = 40;
            auto const errors = group_from([] {
                with_task_group([](task_group& group) {
                    for (int number = 0; number < failing; ++number)
                        group.start_soon([number] {
                            if (number % 3 == 0) lowlevel::cancel_shielded_checkpoint();
                            throw ordinary(number);
                        });
                });
            });
            check(errors.has_value(), "a group");
            std::vector<int> times(failing);
            errors->handle([&](ordinary const& error) { ++times[std::size_t(error.number)]; });
            check(times == std::vector<int>(failing, 1), "of all of them");
        });
    }

    TEST_CASE("G28: one failure, too, comes as a group, in groups of groups as well") {
        run_test([] {
            auto const errors = group_from([] {
                with_task_group([](task_group& group) {
                    group.start_soon([] {
                        with_task_group(
                            [](task_group& inner) { inner.start_soon([] { throw ordinary(1); }); });
                    });
                });
            });
            check(errors.has_value() && errors->exceptions().size() == 1, "a group of one");
            auto const inner = group_from([&] { std::rethrow_exception(errors->exceptions()[0]); });
            check(inner.has_value() && inner->exceptions().size() == 1, "which is a group of one");
        });
    }
}
