#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {
struct ordinary : std::runtime_error {
    ordinary() : std::runtime_error("ordinary") {}
};
} // namespace

TEST_SUITE("runtime.timeouts") {
    TEST_CASE("D1: move_on_after goes on when the time is over") {
        run_test([] {
            CHECK_FALSE(move_on_after(1ms, [] { sleep_forever(); }));
            CHECK(move_on_after(1h, [] { lowlevel::checkpoint(); }));
            CHECK_FALSE(move_on_at(current_time() + 1ms, [] { sleep_forever(); }));
            CHECK_FALSE(move_on_after(0ns, [] { lowlevel::checkpoint(); }));
        });
    }

    TEST_CASE("D1: move_on_after gives the body's value, or nothing") {
        run_test([] {
            CHECK(move_on_after(1h, [] { return 3; }) == 3);
            CHECK_FALSE(move_on_after(1ms, [] { return sleep_forever(), 3; }).has_value());
            auto const moved = move_on_after(1h, [] { return std::make_unique<int>(4); });
            CHECK(**moved == 4);
        });
    }

    TEST_CASE("D1: duration::max() is no deadline") {
        run_test([] {
            CHECK(move_on_after(duration::max(), [](cancel_scope& scope) {
                CHECK(scope.deadline() == time_point::max());
                CHECK(current_effective_deadline() == time_point::max());
                sleep(1ms);
            }));
        });
    }

    TEST_CASE("D2: the body of fail_after is given its scope and may move the deadline") {
        run_test([] {
            for (bool in_time = false; !in_time;) // again, if the machine is too slow for that
                fail_after(1ms, [&](cancel_scope& scope) {
                    time_point const before = scope.deadline();
                    scope.set_deadline(current_time() + 1h);
                    in_time = current_time() < before;
                    if (in_time) sleep(3ms);
                });
            check_throws<timeout_error>(
                [] {
                    fail_after(1h, [](cancel_scope& scope) {
                        scope.set_deadline(current_time() + 1ms);
                        sleep_forever();
                    });
                },
                "the moved deadline");
        });
    }

    TEST_CASE("D3: fail_after throws timeout_error when its own deadline cut the body short") {
        run_test([] {
            check_throws<timeout_error>([] { fail_after(1ms, [] { sleep_forever(); }); }, "fail_after");
            check_throws<timeout_error>(
                [] { fail_at(current_time() + 1ms, [] { sleep_forever(); }); }, "fail_at");
            try {
                fail_after(1ms, [] { sleep_forever(); });
            } catch (std::system_error const& error) {
                CHECK(error.code() == std::errc::timed_out);
            }
            CHECK(fail_after(1h, [] { return 7; }) == 7);
        });
    }

    TEST_CASE("D3: no timeout_error when the body met no checkpoint, swallowed, failed or was cancelled") {
        run_test([] {
            fail_at(time_point::min(), [] {}); // no checkpoint
            fail_at(time_point::min(), [] {
                try {
                    lowlevel::checkpoint();
                } catch (cancelled const&) { // swallowed
                }
            });
            check_throws<ordinary>(
                [] {
                    fail_at(time_point::min(), [] {
                        try {
                            lowlevel::checkpoint();
                        } catch (cancelled const&) { // replaced
                            throw ordinary();
                        }
                    });
                },
                "the body's own error");
            fail_after(1h, [](cancel_scope& scope) {
                scope.cancel();
                sleep_forever();
            });
        });
    }

    TEST_CASE("D3: an explicit cancel of a body with a value ends fail_after with task_cancelled") {
        run_test([] {
            check_throws<task_cancelled>(
                [] {
                    fail_after(1h, [](cancel_scope& scope) {
                        scope.cancel();
                        return sleep_forever(), 1;
                    });
                },
                "no value");
        });
    }

    TEST_CASE("D3: a visible outer cancellation passes, no timeout_error") {
        run_test([] {
            cancel_scope outer;
            CHECK_FALSE(outer.run([&] {
                fail_at(time_point::min(), [&] {
                    outer.cancel();
                    lowlevel::checkpoint();
                });
                check(false, "not reached");
            }));
        });
    }

    TEST_CASE("D3, C25: who cancels when the deadline has passed does not make it another cause") {
        run_test({.seeds = {}}, [] { // the clock goes on although nothing waits
            bool timed_out = false;
            try {
                fail_after(1ms, [](cancel_scope& scope) {
                    while (current_time() < scope.deadline()) {
                    }
                    CHECK(scope.cancel_called());
                    scope.cancel("too late to be the cause");
                    lowlevel::checkpoint();
                });
            } catch (timeout_error const&) {
                timed_out = true;
            }
            CHECK(timed_out);
        });
    }

    TEST_CASE("D4, C25: the first cause counts: an explicit cancel is no timeout, however late the exit") {
        run_test([] {
            for (bool in_time = false; !in_time;) // again, if the machine is too slow for that
                fail_after(1ms, [&](cancel_scope& scope) {
                    scope.cancel("explicit");
                    in_time = current_time() < scope.deadline();
                    if (!in_time) return;
                    shielded([] { sleep(3ms); });
                    CHECK(current_time() >= scope.deadline());
                    CHECK(scope.cancel_reason() == "explicit");
                    sleep_forever();
                });
            bool timed_out = false;
            try {
                fail_after(1ms, [](cancel_scope& scope) {
                    try {
                        sleep_forever();
                    } catch (cancelled const&) {
                        scope.cancel("too late to be the cause");
                        throw;
                    }
                });
            } catch (timeout_error const&) {
                timed_out = true;
            }
            CHECK(timed_out);
        });
    }

    TEST_CASE("D5: with no time at all the body runs to its first checkpoint, then timeout_error") {
        run_test([] {
            for (duration const delay : {duration(0), duration(-5), duration::min()}) {
                bool begun = false;
                bool went_on = false;
                check_throws<timeout_error>(
                    [&] {
                        fail_after(delay, [&] {
                            begun = true;
                            lowlevel::checkpoint();
                            went_on = true;
                        });
                    },
                    "no time");
                CHECK(begun);
                CHECK_FALSE(went_on);
            }
            fail_after(duration::max(), [] { sleep(1ms); });
        });
    }

    TEST_CASE("D6: timeout_error replaces the cancellation, but what else failed leaves instead of it") {
        run_test([] {
            bool got_group = false;
            try {
                fail_after(1ms, [] {
                    with_task_group([](task_group& group) {
                        group.start_soon([] {
                            try {
                                sleep_forever();
                            } catch (cancelled const&) { // replaced
                                throw ordinary();
                            }
                        });
                        sleep_forever();
                    });
                });
            } catch (exception_group const& errors) {
                got_group = errors.contains<ordinary>() && !errors.contains<timeout_error>();
            }
            CHECK(got_group);
            bool mixed = false;
            try { // a group with cancellations in it
                fail_after(1ms, [] {
                    try {
                        sleep_forever();
                    } catch (cancelled const&) {
                        throw exception_group("mixed", {std::current_exception(),
                                                        std::make_exception_ptr(ordinary())});
                    }
                });
            } catch (exception_group const& errors) {
                mixed = errors.contains<ordinary>() && !errors.contains<cancelled>();
            }
            CHECK(mixed);
        });
    }

    TEST_CASE("D7: of nested timeouts the shorter one fires") {
        run_test([] {
            fail_after(1h, [] {
                check_throws<timeout_error>([] { fail_after(1ms, [] { sleep_forever(); }); },
                                            "the inner one");
                lowlevel::checkpoint();
            });
            bool inner_timed_out = false;
            check_throws<timeout_error>(
                [&] {
                    fail_after(1ms, [&] {
                        try {
                            fail_after(1h, [] { sleep_forever(); });
                        } catch (timeout_error const&) {
                            inner_timed_out = true;
                        }
                    });
                },
                "the outer one");
            CHECK_FALSE(inner_timed_out);
        });
    }

    TEST_CASE("D7: both expired: only the outer one reports, unless the inner one is shielded") {
        run_test([] {
            bool inner_reported = false;
            check_throws<timeout_error>(
                [&] {
                    fail_at(time_point::min(), [&] {
                        try {
                            fail_at(time_point::min(), [] { lowlevel::checkpoint(); });
                        } catch (timeout_error const&) {
                            inner_reported = true;
                        }
                    });
                },
                "the outer one");
            CHECK_FALSE(inner_reported);
            check_throws<timeout_error>(
                [&] {
                    fail_at(time_point::min(), [&] {
                        try {
                            fail_at(time_point::min(), true, [] { lowlevel::checkpoint(); });
                        } catch (timeout_error const&) {
                            inner_reported = true;
                        }
                        lowlevel::checkpoint();
                        check(false, "not reached");
                    });
                },
                "the outer one again");
            CHECK(inner_reported);
        });
    }

    TEST_CASE("D8: a shielded timeout ignores outer cancellation but keeps its own deadline") {
        run_test([] {
            cancel_scope outer;
            CHECK_FALSE(outer.run([&] {
                outer.cancel();
                CHECK(move_on_after(1h, true, [] { lowlevel::checkpoint(); }));
                CHECK_FALSE(move_on_after(1ms, true, [] { sleep_forever(); }));
                check_throws<timeout_error>([] { fail_after(1ms, true, [] { sleep_forever(); }); },
                                            "its own deadline");
                lowlevel::checkpoint();
            }));
        });
    }

    TEST_CASE("D10: a body that finished in time finished, whatever the timer does meanwhile") {
        run_test({.seeds = {0, 1}, .times = 5}, [] {
            with_task_group([](task_group& group) {
                for (int task = 0; task < 4; ++task)
                    group.start_soon([task] {
                        for (int time = 0; time < 50; ++time) {
                            bool done = false;
                            bool timed_out = false;
                            try {
                                fail_after(std::chrono::microseconds(task * 15), [&] {
                                    lowlevel::checkpoint();
                                    lowlevel::checkpoint();
                                    done = true;
                                });
                            } catch (timeout_error const&) {
                                timed_out = true;
                            }
                            check(done != timed_out, "done or timed out, not both, not neither");
                        }
                    });
            });
        });
    }

    TEST_CASE("D10: fail_after cut at each suspension point gives either the value or the outer end") {
        cancel_at_every_suspension_point([](attempt& at) {
            bool timed_out = false;
            bool const finished = at.run([&] {
                try {
                    fail_after(1ms, [] {
                        sleep(100us);
                        sleep_forever();
                    });
                } catch (timeout_error const&) {
                    timed_out = true;
                }
            });
            check(finished == timed_out, "the timeout, or the cancellation");
        });
    }

    TEST_CASE("NX7: move_on_at and fail_at take a time, which may have passed") {
        run_test([] {
            check(!move_on_at(current_time() + 1ms, [] { sleep_forever(); }), "cut short");
            check(!move_on_at(time_point::min(), [] { lowlevel::checkpoint(); }), "at once");
            check(move_on_at(time_point::max(), [] { lowlevel::checkpoint(); }), "never");
            check_throws<timeout_error>([] { fail_at(current_time(), [] { sleep_forever(); }); }, "fail_at");
            check(fail_at(current_time() + 1h, [] { return 7; }) == 7, "in time");
        });
    }

    TEST_CASE("D9: the shield may stand before the body; nothing else changes") {
        run_test([] {
            cancel_scope outer;
            bool finished = false, timed_out = false;
            bool const through = outer.run([&] {
                outer.cancel();
                finished = move_on_after(1h, true, [] { lowlevel::checkpoint(); });
                try {
                    fail_after(1ms, true, [] { sleep_forever(); });
                } catch (timeout_error const&) {
                    timed_out = true;
                }
                move_on_after(1h, false, [] { lowlevel::checkpoint(); });
                check(false, "without a shield the outer cancellation comes in");
            });
            check(finished && timed_out && !through, "the shields held");
        });
    }
}
