#include <weft/sync/portal.hpp>

#include "each_runtime.hpp"
#include "support/address_space.hpp"
#include "support/child_process.hpp"
#include "support/mistakes.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/from_thread.hpp>
#include <weft/sync/mutex.hpp>
#include <weft/sync/to_thread.hpp>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

// What becomes of a portal's task, and of its callable, other than a value.

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::finds_mistakes;

namespace {

weft::test::child_program const no_stack_for_a_task("no_stack_for_a_task_of_a_portal", [] {
    auto const portal = weft::from_thread::start_blocking_portal({.workers = 1});
    auto const other = portal->start_task_soon([] { weft::sleep_forever(); });
    portal->call([] {});
    weft::test::allow_more_address_space(50 << 20);
    try {
        portal->start_task_soon(weft::task_options{.name = "the big one", .stack_size = 64 << 20},
                                [] { std::puts("it ran"); })
            .get();
    } catch (std::system_error const& error) {
        if (error.code().value() == ENOMEM) std::puts("ENOMEM");
        std::puts(error.what());
    }
    std::printf("%d\n", portal->call([] { return 555; }));
    std::puts(other.done() ? "the other one has suffered" : "the other one goes on");
    other.cancel();
});

// A task that sleeps in the portal, and is still there afterwards.
class unharmed {
public:
    explicit unharmed(weft::blocking_portal& in)
        : portal_(in), other_(in.start_task_soon([] { weft::sleep_forever(); })) {}
    ~unharmed() {
        check(throws_nothing([&] { return portal_.call([] { return 5; }) == 5; }), "the portal goes on");
        check(!other_.done(), "nobody else suffers");
        other_.cancel();
    }
    unharmed(unharmed const&) = delete;
    unharmed& operator=(unharmed const&) = delete;

private:
    template <class Call> static bool throws_nothing(Call&& call) {
        try {
            return call();
        } catch (weft::run_finished_error const&) {
            return false;
        }
    }
    weft::blocking_portal& portal_;
    weft::future<void> other_;
};

// Takes its time to go.
class goes_slowly {
public:
    explicit goes_slowly(std::atomic<bool>& gone) : gone_(&gone) {}
    goes_slowly(goes_slowly&& other) noexcept : gone_(std::exchange(other.gone_, nullptr)) {}
    goes_slowly& operator=(goes_slowly&&) = delete;
    ~goes_slowly() {
        if (gone_ == nullptr) return;
        weft::lowlevel::cancel_shielded_checkpoint();
        std::this_thread::sleep_for(100us);
        *gone_ = true;
    }

private:
    std::atomic<bool>* gone_;
};

// Runs the body with a portal, in an OS thread.
template <class Body> void with_portal_in_thread(Body const& body) {
    on_each_runtime([&] {
        weft::with_blocking_portal([&](weft::blocking_portal& portal) {
            weft::to_thread::run_sync([&] { body(portal); });
        });
    });
}

bool says_left_locked(auto&& call) {
    try {
        call();
    } catch (std::logic_error const& error) {
        return std::string(error.what()).find("ended without unlocking a mutex") != std::string::npos;
    }
    return false;
}

// Threads that call again and again until they are refused, each in its own way.
class callers {
public:
    explicit callers(weft::blocking_portal& to)
        : ways_{[&to] { to.call([] { weft::lowlevel::checkpoint(); }); },
                [&to] { to.start_task_soon([] { weft::lowlevel::checkpoint(); }).get(); },
                [&to] {
                    to.start_task([](weft::task_status<>& status) {
                          weft::lowlevel::checkpoint();
                          status.started();
                          weft::lowlevel::checkpoint();
                      })
                        .get();
                },
                [&to] { check(*to.wrap_scoped([] { return weft::lowlevel::checkpoint(), 5; }) == 5, "made"); },
                [this, &to, first = true]() mutable {
                    if (std::exchange(first, false)) at_work();
                    to.call([] { weft::sleep_forever(); });
                }} {
        for (auto& way : ways_)
            threads_.emplace_back([this, &way] { call_until_refused(way); });
    }
    ~callers() { join(); }
    callers(callers const&) = delete;
    callers& operator=(callers const&) = delete;

    /// For tasks: until each has been answered, or waits for an answer that does not come by itself.
    void wait_until_at_work() { all_at_work_.wait(); }
    void join() {
        for (std::thread& each : threads_)
            if (each.joinable()) each.join();
    }
    bool all_were_refused() const { return refused_ == ways_.size(); }

private:
    void call_until_refused(std::function<void()>& way) {
        bool answered = false;
        try {
            for (;;)
                try {
                    way();
                    if (!std::exchange(answered, true)) at_work();
                } catch (weft::future_cancelled const&) { // this call was under way, the next one tells
                }
        } catch (weft::run_finished_error const&) {
            ++refused_;
        } catch (...) { // all_were_refused() tells
        }
    }
    void at_work() {
        if (++at_work_ == ways_.size()) all_at_work_.set();
    }

    std::vector<std::function<void()>> ways_;
    std::atomic<std::size_t> at_work_ = 0;
    std::atomic<std::size_t> refused_ = 0;
    weft::event all_at_work_;
    std::vector<std::thread> threads_;
};

// Runs the body with a portal that threads call until its end: a task of the portal, which its host waits for,
// waits for them.
template <class Body> void with_callers(Body const& body) {
    std::optional<callers> threads;
    std::optional<weft::future<void>> keeper;
    auto const wait_for_threads = [&] {
        weft::shielded([&] { weft::to_thread::run_sync([&] { threads->join(); }); });
    };
    auto const at_the_end = [&] { check(threads->all_were_refused() && keeper->done(), "refused"); };
    try {
        weft::with_blocking_portal([&](weft::blocking_portal& portal) {
            threads.emplace(portal);
            weft::to_thread::run_sync([&] { keeper = portal.start_task_soon(wait_for_threads); });
            threads->wait_until_at_work();
            body(portal);
        });
    } catch (...) {
        at_the_end();
        throw;
    }
    at_the_end();
}

} // namespace

TEST_SUITE_BEGIN("sync.portal_failures");

TEST_CASE("B2: a task that gets no stack fails for who asked, and for nobody else") {
    if (weft::test::slowdown > 1) return; // sanitizers reserve more address space than any limit
    auto const end = weft::test::run_child("no_stack_for_a_task_of_a_portal");
    CHECK(end.exit_code == 0);
    CHECK_FALSE(end.says("it ran"));
    CHECK(end.says("ENOMEM"));
    CHECK(end.says("for task 'the big one'"));
    CHECK(end.says("555"));
    CHECK(end.says("the other one goes on"));
}

TEST_CASE("B2, LK8: a task that leaves a mutex locked fails for who asked, in checked builds, and for nobody else") {
    with_portal_in_thread([](weft::blocking_portal& portal) {
        unharmed const at_the_end(portal);
        weft::mutex locks[4];
        check(says_left_locked([&] { portal.call([&] { locks[0].lock(); }); }) == finds_mistakes, "call()");
        check(says_left_locked([&] {
                  portal.start_task([&](weft::task_status<>& status) {
                      locks[1].lock();
                      status.started();
                  })
                      .get();
              }) == finds_mistakes,
              "once it was started");
        check(throws<std::logic_error>(
                  [&] { portal.start_task([&](weft::task_status<>&) { locks[2].lock(); }); }),
              "it was not started");
        check(throws<std::domain_error>([&] {
                  portal.call([&] {
                      locks[3].lock();
                      throw std::domain_error("first");
                  });
              }),
              "what it throws counts");
        for (weft::mutex& lock : locks)
            check(portal.call([&] { return throws<weft::broken_resource_error>([&] { lock.lock(); }); }),
                  "broken");
    });
}

TEST_CASE("B2, T13: who is told of a task's end finds its callable and what that captured gone") {
    with_portal_in_thread([](weft::blocking_portal& portal) {
        for (int round = 0; round < 5; ++round) {
            std::atomic<bool> gone = false;
            portal.call([kept = goes_slowly(gone)] {});
            check(gone.exchange(false), "no value");
            check(portal.call([](goes_slowly const&) { return 5; }, goes_slowly(gone)) == 5, "the value");
            check(gone.exchange(false), "an argument");
            check(throws<int>([&] { portal.call([kept = goes_slowly(gone)] { throw 7; }); }), "its failure");
            check(gone.exchange(false), "it failed");
            auto const [end, number] = portal.start_task<int>(
                [kept = goes_slowly(gone)](weft::task_status<int>& status) {
                    status.started(3);
                    return 4;
                });
            check(number == 3 && end.get() == 4, "both values");
            check(gone.exchange(false), "after start_task()");
            check(throws<int>([&] {
                      portal.start_task([kept = goes_slowly(gone)](weft::task_status<>&) { throw 7; });
                  }),
                  "its failure");
            check(gone.exchange(false), "it was not started");
        }
        std::atomic<bool> gone = false;
        weft::event begun;
        auto const cut_short = portal.start_task_soon([&begun, kept = goes_slowly(gone)] {
            begun.set();
            weft::sleep_forever();
        });
        portal.call([&] { begun.wait(); });
        portal.stop(true);
        check(throws<weft::future_cancelled>([&] { cut_short.get(); }) && gone, "cancelled with the portal");
    });
}

TEST_CASE("B3, B5: threads that call while the host's scope is cancelled are refused, and none hangs") {
    on_each_runtime([] {
        weft::cancel_scope scope;
        scope.run([&] {
            with_callers([&](weft::blocking_portal& portal) {
                scope.cancel();
                portal.sleep_until_stopped();
            });
        });
        check(scope.cancelled_caught(), "the host's cancellation goes on");
    });
}

TEST_CASE("B1, B3: threads that call while the host's body throws are refused, and none hangs") {
    on_each_runtime([] {
        check(throws<weft::exception_group>([] {
                  with_callers([](weft::blocking_portal&) { throw std::domain_error("no"); });
              }),
              "what it threw leaves");
    });
}

TEST_CASE("B3, B10: threads that call a runtime of its own while it is stopped are refused while its handle lives") {
    for (bool const throws_through : {false, true})
        for (unsigned const workers : {1u, 2u}) {
            std::size_t refused = 0;
            bool const thrown = throws<int>([&] {
                auto handle = weft::from_thread::start_blocking_portal({.workers = workers});
                struct ends_before_the_handle {
                    weft::from_thread::portal_handle& handle;
                    std::size_t& refused;
                    callers threads{*handle};
                    ~ends_before_the_handle() {
                        handle.stop(true);
                        threads.join();
                        refused += threads.all_were_refused();
                    }
                } guard{handle, refused};
                handle->call([&] { guard.threads.wait_until_at_work(); });
                if (throws_through) throw 7;
            });
            CHECK(thrown == throws_through);
            CHECK(refused == 1);
        }
}

TEST_SUITE_END();
