#include <weft/runtime/run.hpp>

#include "runtime/src/scope_access.hpp"
#include "support/child_process.hpp"
#include "support/forked.hpp"
#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/context_var.hpp>
#include <weft/runtime/detail/spinlock.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/from_thread.hpp>
#include <weft/sync/future.hpp>
#include <weft/sync/mutex.hpp>
#include <weft/sync/portal.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include <sys/wait.h>
#include <unistd.h>

TEST_SUITE_BEGIN("sync.fork");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::failures_in_fork;
using weft::test::is_refused;
using weft::test::run_child;

weft::test::child_program const goes_on("a task goes on in a fork", [] {
    weft::run([] {
        ::pid_t const child = ::fork();
        if (child == 0) return; // as it must not
        int status = 0;
        ::waitpid(child, &status, 0);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) std::puts("aborted");
    });
});

weft::test::child_program const call_goes_on("a call in a thread goes on in a fork", [] {
    weft::run([] {
        weft::to_thread::run_sync([] {
            ::pid_t const child = ::fork();
            if (child == 0) {
                ::alarm(10); // what hangs ends, too
                return;      // as it must not
            }
            int status = 0;
            ::waitpid(child, &status, 0);
            if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) std::puts("aborted");
        });
    });
});

weft::test::child_program const lock_of_nobody("a lock is nobody's in a fork", [] {
    weft::run([] {
        weft::detail::spinlock<weft::detail::lock_rank::queue> lock;
        std::thread([&lock] { lock.lock_for_fork(); }).join(); // held by a thread that does not come along
        ::pid_t const child = ::fork();
        if (child == 0) {
            ::alarm(10 * weft::test::slowdown);
            lock.lock();
            ::_exit(0);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) std::puts("aborted");
    });
});

} // namespace

TEST_CASE("in a child of fork() every call that would wait says what is wrong") {
    weft::test::run_test({.seeds = {}}, [] {
        weft::mutex mutex;
        weft::event event;
        mutex.lock();
        int const failures = failures_in_fork([&] {
            return is_refused([] { weft::sleep(1ms); }) +
                   is_refused([] { weft::lowlevel::checkpoint(); }) +
                   is_refused([&] { event.wait(); }) + is_refused([&] { mutex.lock(); }) +
                   is_refused([] { weft::run([] {}); }) +
                   is_refused([] { weft::to_thread::run_sync([] {}); }) +
                   is_refused([] { weft::with_task_group([](weft::task_group&) {}); }) +
                   is_refused([] { weft::move_on_after(1ms, [] {}); }) +
                   is_refused([] { weft::wait_all_tasks_blocked(); });
        });
        mutex.unlock();
        check(failures == 0, std::to_string(failures) + " calls were not refused");
        weft::sleep(1ms); // here all is as before
    });
}

TEST_CASE("TI2: in a child of fork() calls that look at tasks or start them are refused, and do not hang") {
    static weft::run_var<int> variable("of the run");
    weft::test::run_test({.seeds = {}}, [] {
        variable.set(1);
        weft::with_task_group([](weft::task_group& group) {
            int const failures = failures_in_fork([&] {
                std::ostringstream tree;
                return is_refused([] { weft::get_current_task(); }) +
                       is_refused([] { weft::get_running_tasks(); }) +
                       is_refused([&] { weft::dump_tasks(tree); }) +
                       is_refused([] { weft::get_run_statistics(); }) +
                       is_refused([] { variable.get(); }) + is_refused([&] { group.start_soon([] {}); }) +
                       is_refused([&] { group.create_task([] {}); }) +
                       is_refused([&] { group.start([](weft::task_status<>& status) { status.started(); }); });
            });
            check(failures == 0, std::to_string(failures) + " calls were not refused");
        });
    });
}

TEST_CASE("C3: a child of fork() that cancels does not hang, even if another thread was just cancelling") {
    weft::test::run_test({.seeds = {}}, [] {
        weft::with_task_group([](weft::task_group& group) {
            auto const task = group.create_task([] { // who has children is told under the lock of delivery
                weft::with_task_group([](weft::task_group& inner) {
                    inner.start_soon([] { weft::sleep_forever(); });
                    weft::sleep_forever();
                });
            });
            weft::wait_all_tasks_blocked();
            std::promise<void> cancelling;
            std::promise<void> forked;
            std::thread other([&] {
                std::lock_guard const guard(weft::detail::delivery_mutex());
                cancelling.set_value();
                forked.get_future().wait();
            });
            cancelling.get_future().wait();
            int const failures = failures_in_fork([&] {
                task.cancel();
                group.cancel();
                return 0;
            });
            forked.set_value();
            other.join();
            group.cancel();
            check(failures == 0, "it has ended");
        });
    });
}

TEST_CASE("in a child of fork() portals, from_thread and futures are refused, and do not hang") {
    weft::test::run_test({.seeds = {}}, [] {
        weft::with_blocking_portal([](weft::blocking_portal& portal) {
            weft::promise<int> promise;
            auto future = promise.get_future();
            int const failures = weft::to_thread::run_sync([&] {
                return failures_in_fork([&] {
                    return is_refused([&] { portal.call([] {}); }) +
                           is_refused([&] { portal.start_task_soon([] {}); }) +
                           is_refused([&] { portal.start_task([](weft::task_status<>&) {}); }) +
                           is_refused([&] { portal.wrap_scoped([] { return 1; }); }) +
                           is_refused([&] { portal.stop(); }) +
                           is_refused([] { weft::from_thread::run([] {}); }) +
                           is_refused([] { weft::from_thread::run_sync([] {}); }) +
                           is_refused([] { weft::from_thread::check_cancelled(); }) +
                           is_refused([&] { future.get(); }) + is_refused([] { weft::run([] {}); });
                });
            });
            promise.set_value(1);
            check(failures == 0, std::to_string(failures) + " calls were not refused");
        });
    });
}

TEST_CASE("fork() by a thread that has nothing to do with the run, while it is busy") {
    weft::test::run_test({.seeds = {}}, [] {
        weft::with_task_group([](weft::task_group& group) {
            for (int task = 0; task < 4; ++task)
                group.start_soon([] {
                    for (;;)
                        weft::lowlevel::checkpoint();
                });
            int failures = 0;
            std::thread other([&] {
                for (int round = 0; round < 10; ++round)
                    failures +=
                        failures_in_fork([] { return is_refused([] { weft::run([] {}); }); });
            });
            other.join();
            group.cancel();
            check(failures == 0, "refused");
        });
    });
}

TEST_CASE("a child of fork() that has no run may begin one") {
    weft::run([] {}); // over
    CHECK(failures_in_fork([] {
              return weft::run({.workers = 1}, [] {
                  weft::sleep(1ms);
                  return 7;
              });
          }) == 7);
}

TEST_CASE("a task that goes on in a child of fork() ends it with an explanation") {
    auto const end = run_child("a task goes on in a fork");
    if (weft::test::slowdown != 1) return; // sanitizers fault elsewhere
    CHECK(end.says("exec or _exit"));
    CHECK(end.says("aborted"));
    CHECK(end.exit_code == 0);
}

TEST_CASE("a call in a child of fork() that waits for a lock of nobody's ends it with an explanation") {
    auto const end = run_child("a lock is nobody's in a fork");
    CHECK(end.says("a lock that another thread held when fork() was called"));
    CHECK(end.says("aborted"));
    CHECK(end.exit_code == 0);
}

TEST_CASE("a call in a thread that returns in a child of fork() ends it with an explanation") {
    auto const end = run_child("a call in a thread goes on in a fork");
    CHECK(end.says("to_thread::run_sync runs returned in a child of fork()"));
    CHECK(end.says("aborted"));
    CHECK(end.exit_code == 0);
}

TEST_CASE("B10, B12: in a child of fork() who holds a portal lets it go in silence, and hears why a call failed") {
    auto handle = weft::from_thread::start_blocking_portal({.workers = 1});
    weft::from_thread::blocking_portal_provider provider(weft::run_options{.workers = 1});
    std::optional lease(provider.acquire());
    auto scoped = handle->wrap_scoped([] { return 1; });
    int const failures = failures_in_fork([&] {
        int failed = is_refused([&] { provider.acquire(); });
        { auto const gone = std::move(scoped); }
        failed += is_refused([&] { handle.stop(); });
        failed += is_refused([&] {
            auto const mine = std::move(handle);
            mine->call([] {});
        });
        failed += is_refused([&] {
            auto const mine = *std::move(lease); // the last one
            mine->call([] {});
        });
        failed += is_refused([&] { provider.acquire(); });
        return failed + is_refused([] { weft::from_thread::start_blocking_portal({.workers = 1}); });
    });
    CHECK(failures == 0);
    CHECK(handle->call([] { return 2; }) == 2); // here all is as before
    CHECK(provider.acquire()->call([] { return 3; }) == 3);
    CHECK(*scoped == 1);
}

TEST_CASE("children that execute another program are not concerned") {
    weft::test::run_test({.seeds = {}}, [] {
        check(std::system("true") == 0, "system()");
        ::pid_t const child = ::fork();
        if (child == 0) {
            ::execl("/bin/true", "true", nullptr);
            ::_exit(127);
        }
        int status = 0;
        while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        check(status == 0, "fork() and exec");
        weft::sleep(1ms);
    });
}

TEST_SUITE_END();
