#include "support/ferry.hpp"
#include "support/gate.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cfenv>
#include <exception>
#include <stdexcept>
#include <thread>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {

struct numbered : std::runtime_error {
    explicit numbered(int which) : std::runtime_error("numbered"), number(which) {}
    int number;
};

int number_of(std::exception_ptr const& error) {
    if (error == nullptr) return -1;
    try {
        std::rethrow_exception(error);
    } catch (numbered const& one) {
        return one.number;
    } catch (...) { // the test expects only the above
        return -2;
    }
}

// Lets others run in each of the ways there are, some of which change the thread.
void suspend(int way) {
    switch (way % 3) {
    case 0: lowlevel::checkpoint(); break;
    case 1: weft::sleep(std::chrono::microseconds(way % 7)); break;
    case 2: {
        gate opened;
        with_task_group([&](task_group& group) {
            group.start_soon([&] { opened.open(); });
            opened.wait();
        });
        break;
    }
    }
}

template <class Body> void in_many_tasks(Body const& body) {
    run_test({.workers = {1, 2, 4}, .seeds = {0, 1, 2}, .times = 10}, [&] {
        with_task_group([&](task_group& group) {
            for (int task = 0; task < 16; ++task)
                group.start_soon([&body, task] { body(task); });
        });
    });
}

struct suspends_when_destroyed {
    int way;
    int expected;
    ~suspends_when_destroyed() {
        if (std::uncaught_exceptions() != expected) std::abort();
        suspend(way);
        if (std::uncaught_exceptions() != expected) std::abort();
    }
};

struct crosses_when_destroyed {
    ferry& across;
    std::atomic<int>& migrated;
    ~crosses_when_destroyed() {
        if (std::uncaught_exceptions() != 1) std::abort();
        if (across.migrate()) ++migrated;
        if (std::uncaught_exceptions() != 1 || std::current_exception() != nullptr) std::abort();
    }
};

} // namespace

TEST_SUITE("runtime.exceptions") {
    TEST_CASE("M7: an exception that is handled across suspensions stays the current one") {
        in_many_tasks([](int task) {
            try {
                throw numbered(task);
            } catch (numbered const& error) {
                for (int time = 0; time < 5; ++time) {
                    suspend(task + time);
                    check(error.number == task, "the caught object");
                    check(number_of(std::current_exception()) == task, "the current exception");
                    check(std::uncaught_exceptions() == 0, "none is in flight");
                }
            }
            check(std::current_exception() == nullptr, "none afterwards");
        });
    }

    TEST_CASE("M7: rethrow after suspensions throws the own exception") {
        in_many_tasks([](int task) {
            int caught = -1;
            try {
                try {
                    throw numbered(task);
                } catch (numbered const&) {
                    suspend(task);
                    suspend(task + 1);
                    throw;
                }
            } catch (numbered const& again) {
                suspend(task + 2);
                caught = again.number;
            }
            check(caught == task, "the own exception");
        });
    }

    TEST_CASE("M7: nested handlers across suspensions unwind in their order") {
        in_many_tasks([](int task) {
            try {
                throw numbered(task);
            } catch (numbered const& outer) {
                suspend(task);
                try {
                    throw numbered(task + 100);
                } catch (numbered const& inner) {
                    suspend(task + 1);
                    check(inner.number == task + 100, "the inner one");
                    try {
                        suspend(task + 2);
                        throw;
                    } catch (numbered const& innermost) {
                        suspend(task);
                        check(innermost.number == task + 100, "the inner one again");
                    }
                    check(number_of(std::current_exception()) == task + 100, "still the inner one");
                }
                suspend(task + 2);
                check(number_of(std::current_exception()) == task, "the outer one again");
                check(outer.number == task, "the outer object");
            }
            check(std::current_exception() == nullptr, "none afterwards");
        });
    }

    TEST_CASE("M7, M9: a destructor may suspend while an exception is in flight") {
        in_many_tasks([](int task) {
            try {
                suspends_when_destroyed const first{task, 1};
                suspends_when_destroyed const second{task + 1, 1};
                throw numbered(task);
            } catch (numbered const& error) {
                check(error.number == task, "the own exception");
            }
            check(std::uncaught_exceptions() == 0, "none is in flight");
        });
    }

    TEST_CASE("M7, M9: a destructor that suspends may throw and catch, and suspend within that") {
        in_many_tasks([](int task) {
            struct throws_within {
                int task;
                ~throws_within() {
                    try {
                        suspends_when_destroyed const nested{task, 2};
                        throw numbered(task + 100);
                    } catch (numbered const& inner) {
                        suspend(task + 1);
                        if (inner.number != task + 100 || std::uncaught_exceptions() != 1) std::abort();
                    }
                }
            };
            try {
                throws_within const guard{task};
                throw numbered(task);
            } catch (numbered const& outer) {
                check(outer.number == task, "the outer one");
            }
        });
    }

    TEST_CASE("M7, M9: on another thread a handler has its exception still, and unwinding goes on") {
        std::atomic<int> while_unwinding{0};
        std::atomic<int> in_handler{0};
        run_test({.workers = {2, 4}, .seeds = {}, .times = 3}, [&] {
            ferry across;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 2; ++task)
                    group.start_soon({.pinned = true}, [&] { across.help(); });
                group.start_soon([&] {
                    for (int time = 0; time < 20; ++time) {
                        int caught = -1;
                        try {
                            try {
                                crosses_when_destroyed const guard{across, while_unwinding};
                                throw numbered(time);
                            } catch (numbered const& error) {
                                if (across.migrate()) ++in_handler;
                                check(error.number == time, "the caught object");
                                check(number_of(std::current_exception()) == time, "the current exception");
                                check(std::uncaught_exceptions() == 0, "none is in flight");
                                throw;
                            }
                        } catch (numbered const& again) {
                            if (across.migrate()) ++in_handler;
                            caught = again.number;
                        }
                        check(caught == time, "what was thrown again");
                        check(std::current_exception() == nullptr, "none afterwards");
                    }
                    across.stop = true;
                });
            });
        });
        CHECK(while_unwinding > 0); // else this test showed nothing
        CHECK(in_handler > 0);
    }

    TEST_CASE("M7: an exception_ptr travels between tasks and threads") {
        run_test({.times = 10}, [] {
            std::exception_ptr carried;
            gate ready;
            with_task_group([&](task_group& group) {
                group.start_soon([&] {
                    try {
                        throw numbered(7);
                    } catch (...) { // carried over
                        suspend(0);
                        carried = std::current_exception();
                        ready.open();
                        suspend(1);
                    }
                });
                for (int task = 0; task < 4; ++task)
                    group.start_soon([&] {
                        ready.wait();
                        check(number_of(carried) == 7, "the carried exception");
                    });
            });
        });
    }

    TEST_CASE("M9: cancelled unwinds through frames that suspend, shielded") {
        run_test({.times = 10}, [] {
            std::atomic<int> cleaned{0};
            struct cleans_up {
                std::atomic<int>& count;
                ~cleans_up() {
                    shielded([] { weft::sleep(10us); });
                    ++count;
                }
            };
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 8; ++task)
                    group.start_soon([&] {
                        cleans_up const outer{cleaned};
                        cleans_up const inner{cleaned};
                        sleep_forever();
                    });
                lowlevel::checkpoint();
                group.cancel();
            });
            CHECK(cleaned % 2 == 0);
            CHECK(cleaned == 16);
        });
    }

    TEST_CASE("M9: an unshielded wait in a destructor during a cancellation does not throw, it waits") {
        run_test({.times = 5}, [] {
            std::atomic<int> waited{0};
            struct waits {
                std::atomic<int>& count;
                ~waits() {
                    lowlevel::checkpoint();
                    weft::sleep(10us);
                    ++count;
                }
            };
            cancel_scope scope;
            CHECK_FALSE(scope.run([&] {
                waits const guard{waited};
                scope.cancel();
                lowlevel::checkpoint();
            }));
            CHECK(waited == 1);
        });
    }

    TEST_CASE("M9: a timeout inside a destructor still works while an exception is in flight") {
        run_test({.times = 5}, [] {
            bool timed_out = false;
            struct gives_up {
                bool& timed_out;
                ~gives_up() { timed_out = !move_on_after(1ms, [] { sleep_forever(); }); }
            };
            try {
                gives_up const guard{timed_out};
                throw numbered(1);
            } catch (numbered const&) { // the one just thrown
            }
            CHECK(timed_out);

            bool again = false;
            cancel_scope scope;
            CHECK_FALSE(scope.run([&] {
                gives_up const guard{again};
                scope.cancel();
                lowlevel::checkpoint();
            }));
            CHECK(again);
        });
    }

    TEST_CASE("M9: a task group inside a destructor works while an exception is in flight") {
        run_test({.times = 5}, [] {
            std::atomic<int> ran{0};
            struct opens_group {
                std::atomic<int>& ran;
                ~opens_group() {
                    with_task_group([&](task_group& group) {
                        for (int task = 0; task < 3; ++task)
                            group.start_soon([&] {
                                lowlevel::checkpoint();
                                ++ran;
                            });
                        check(group.start<int>([](task_status<int>& status) {
                            lowlevel::checkpoint();
                            status.started(3);
                        }) == 3, "start in a destructor");
                    });
                }
            };
            cancel_scope scope;
            CHECK_FALSE(scope.run([&] {
                opens_group const guard{ran};
                scope.cancel();
                lowlevel::checkpoint();
            }));
            CHECK(ran == 3);
        });
    }

    TEST_CASE("M7: errno is a task's own") {
        in_many_tasks([](int task) {
            for (int time = 0; time < 10; ++time) {
                errno = 1000 + task;
                suspend(task % 2); // ways that spawn nothing
                check(errno == 1000 + task, "errno after a suspension");
            }
        });
    }

    TEST_CASE("M7: the rounding mode is a task's own") {
        in_many_tasks([](int task) {
            int const modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
            std::fesetround(modes[task % 4]);
            for (int time = 0; time < 5; ++time) {
                suspend(task % 2);
                check(std::fegetround() == modes[task % 4], "the rounding mode");
            }
            std::fesetround(FE_TONEAREST);
        });
    }
}
