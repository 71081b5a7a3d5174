#include "sync/src/thread_pool.hpp"

#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/to_thread.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <fstream>
#include <latch>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include <sys/types.h>
#include <unistd.h>

using namespace std::chrono_literals;
using weft::detail::thread_call;
using weft::detail::thread_pool;
using weft::test::check;
using weft::test::slowdown;

namespace {

thread_pool& pool_of_run() {
    return weft::detail::current_services("a test").get<thread_pool>(
        [] { return std::make_unique<thread_pool>(); });
}

// The threads in which calls were made, and those of them that have ended.
struct threads_seen {
    std::atomic<int> begun = 0;
    std::atomic<int> ended = 0;
};

void note_this_thread(std::shared_ptr<threads_seen> const& in) {
    struct mark {
        std::shared_ptr<threads_seen> seen;
        ~mark() {
            if (seen != nullptr) ++seen->ended;
        }
    };
    thread_local mark of_thread;
    if (of_thread.seen != nullptr) return;
    of_thread.seen = in;
    ++in->begun;
}

template <class F> std::shared_ptr<thread_call> make_call(F function) {
    return std::make_shared<weft::detail::typed_thread_call<void, F>>(std::in_place, std::move(function));
}

// A call that no task waits for, and that lasts until end().
class held_call {
public:
    void begin_in(thread_pool& pool, std::latch& begun) {
        call_ = make_call([this, &begun] {
            thread_ = ::gettid();
            begun.count_down();
            may_end_.wait();
        });
        pool.submit(call_);
    }
    void end() { // its thread is idle for the next submit()
        may_end_.count_down();
        for (bool finished = false; !finished; std::this_thread::yield()) {
            std::lock_guard const guard(call_->lock);
            finished = call_->now == thread_call::state::finished;
        }
    }
    pid_t thread() const { return thread_; }

private:
    std::latch may_end_{1};
    pid_t thread_ = 0;
    std::shared_ptr<thread_call> call_;
};

// Of an idle thread: it has no lock to wait for.
void wait_until_asleep(pid_t thread) {
    for (char state = 0; state != 'S'; std::this_thread::yield()) {
        std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
        std::string text;
        std::getline(file, text);
        state = text.at(text.rfind(')') + 2);
    }
}

} // namespace

TEST_SUITE_BEGIN("sync.thread_pool");

TEST_CASE("T8: a thread that has become idle takes the next call") {
    on_each_runtime([] {
        std::set<std::thread::id> seen;
        for (int call = 0; call < 50; ++call)
            seen.insert(weft::to_thread::run_sync([] { return std::this_thread::get_id(); }));
        CHECK(seen.size() == 1);
    });
}

TEST_CASE("T8, T13: threads that are idle at the same time take calls one each, and none is lost") {
    often_on_each_runtime(3, [] {
        std::atomic<int> done = 0;
        for (int at_once : {1, 7, 2, 5, 1, 3})
            weft::with_task_group([&](weft::task_group& group) {
                auto const together = std::make_shared<std::latch>(at_once);
                for (int call = 0; call < at_once; ++call)
                    group.start_soon([&, together] {
                        weft::to_thread::run_sync([&done, together] {
                            together->arrive_and_wait(); // each in a thread of its own
                            ++done;
                        });
                    });
            });
        weft::test::check(done == 19, "each call ran once");
    });
}

TEST_CASE("T8: while all idle threads sleep, calls go to those that became idle last") {
    thread_pool pool;
    std::array<pid_t, 3> before{};
    for (int round = 0; round < 4; ++round) {
        std::array<held_call, 3> calls;
        std::latch begun(3);
        for (held_call& each : calls)
            each.begin_in(pool, begun);
        begun.wait();
        for (std::size_t place = 0; round > 0 && place < 3; ++place)
            CHECK(calls[place].thread() == before[2 - place]);
        for (std::size_t place = 0; place < 3; ++place) {
            calls[place].end();
            before[place] = calls[place].thread();
            wait_until_asleep(before[place]);
        }
    }
    pool.close();
}

TEST_CASE("T8: a thread that has slept is not used before those that have just become idle") {
    thread_pool pool;
    for (int round = 0; round < 20; ++round) {
        std::array<held_call, 3> calls;
        std::latch begun(3);
        for (held_call& each : calls)
            each.begin_in(pool, begun);
        begun.wait();
        calls[0].end();
        wait_until_asleep(calls[0].thread());
        calls[1].end(); // the one looks, or the other one, or none does any more
        calls[2].end();
        held_call next;
        std::latch next_begun(1);
        next.begin_in(pool, next_begun);
        next_begun.wait();
        CHECK((next.thread() == calls[1].thread() || next.thread() == calls[2].thread()));
        next.end();
    }
    pool.close();
}

TEST_CASE("T8: a thread that has been idle for as long as the limit ends, and later calls get others") {
    CHECK(thread_pool().idle_limit == 10s);
    on_each_runtime([] {
        pool_of_run().idle_limit = 1ms;
        auto const seen = std::make_shared<threads_seen>();
        int expected = 0;
        for (int at_once : {1, 3, 1, 5}) {
            std::latch together(at_once);
            weft::with_task_group([&](weft::task_group& group) {
                for (int call = 0; call < at_once; ++call)
                    group.start_soon([&] {
                        weft::to_thread::run_sync([&] {
                            note_this_thread(seen);
                            together.arrive_and_wait(); // each in a thread of its own
                        });
                    });
            });
            expected += at_once;
            while (seen->ended < expected)
                std::this_thread::yield();
            check(seen->begun == expected, "none of those that have ended");
        }
    });
}

TEST_CASE("T8: a call that comes as an idle thread reaches the limit is run once, by that one or by another") {
    for (unsigned const workers : {1u, 2u, 4u}) {
        auto const seen = std::make_shared<threads_seen>();
        std::atomic<int> ran = 0;
        std::atomic<int> returned = 0;
        weft::run({.workers = workers}, [&] {
            pool_of_run().idle_limit = 20us;
            auto const call_often = [&] {
                for (int call = 0; call < 700 / slowdown || seen->ended == 0 || seen->begun == ran; ++call) {
                    auto const until = std::chrono::steady_clock::now() + call % 100 * 1us; // the look's 50 included
                    while (std::chrono::steady_clock::now() < until) {}
                    weft::to_thread::run_sync([&] {
                        note_this_thread(seen);
                        ++ran;
                    });
                    ++returned;
                }
            };
            weft::with_task_group([&](weft::task_group& group) {
                for (int caller = 0; caller < 4; ++caller)
                    group.start_soon(call_often);
            });
        });
        CHECK(ran == returned);
        CHECK(seen->begun == seen->ended);
    }
}

TEST_CASE("T9: a run that ends while calls are handed over and threads become idle leaves no call and no thread") {
    unsigned const before = weft::test::count_threads();
    for (unsigned const workers : {1u, 2u, 4u})
        for (int round = 0; round < 100 / slowdown; ++round) {
            auto const abandoned = std::make_shared<std::atomic<int>>(0); // of those that return after the run
            std::atomic<int> handed_over = 0;
            std::atomic<int> ran = 0;
            weft::run({.workers = workers}, [&] {
                pool_of_run().idle_limit = round % 2 == 0 ? 10s : 0s; // none retires meanwhile, or many do
                std::array<weft::cancel_scope, 3> scopes;
                weft::with_task_group([&](weft::task_group& group) {
                    for (weft::cancel_scope& scope : scopes)
                        group.start_soon([&] {
                            weft::to_thread::run_sync([] {}); // its thread is idle for a moment
                            if (weft::detail::run_in_background(make_call([&] { ++ran; }))) ++handed_over;
                            scope.run([&] {
                                weft::to_thread::run_sync({.abandon_on_cancel = true}, [abandoned] { ++*abandoned; });
                            });
                        });
                    weft::lowlevel::checkpoint();
                    for (weft::cancel_scope& scope : scopes)
                        scope.cancel();
                });
                if (weft::detail::run_in_background(make_call([&] { ++ran; }))) ++handed_over;
            });
            CHECK(ran == handed_over);
            CHECK(handed_over == 4);
            while (abandoned.use_count() > 1)
                std::this_thread::yield();
            CHECK(*abandoned <= 3);
        }
    weft::test::wait_for_threads(before);
}

TEST_SUITE_END();
