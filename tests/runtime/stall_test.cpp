#include <weft/runtime/blocking_region.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/runtime/time.hpp>

#include "support/mistakes.hpp"
#include "support/run_test.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <optional>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <dlfcn.h>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

// The ends of code of which no build has a symbol: functions in sections of their own, whose ends the linker names.
extern "C" char const __start_weft_test_keeps[], __stop_weft_test_keeps[];
extern "C" char const __start_weft_test_spawns[], __stop_weft_test_spawns[];
extern "C" char const __start_weft_test_waits[], __stop_weft_test_waits[];

namespace {

// Keeps its worker without a call of weft, until the report is there. It sleeps in between, since
// ThreadSanitizer delivers signals only in system calls. If a busy machine let it answer too late, there is none for
// this stretch: then another one begins.
[[gnu::noinline, gnu::section("weft_test_keeps")]] void
keep_worker_until_heard(mistakes_heard const& heard, std::string const& part, std::size_t times = 1) {
    std::size_t unanswered = 0;
    while (heard.count(part) < times) {
        timespec const moment{0, 1'000'000};
        ::nanosleep(&moment, nullptr);
        if (heard.count("a task that blocks signals") == unanswered) continue;
        ++unanswered;
        lowlevel::checkpoint();
    }
}

// Its child keeps its worker, until the report is there.
[[gnu::noinline, gnu::section("weft_test_spawns")]] void
spawn_busy_one(task_group& group, mistakes_heard const& heard) {
    group.start_soon({.name = "a busy one"}, [&heard] { keep_worker_until_heard(heard, "a busy one"); });
}

// Whether a place that is given as "program+0x123" is between the two.
bool lies_between(std::string const& place, char const* first, char const* end) {
    std::string const program = program_invocation_short_name + std::string("+0x");
    Dl_info info{};
    if (!place.starts_with(program) || ::dladdr(first, &info) == 0) return false;
    auto const offset = std::stoul(place.substr(program.size()), nullptr, 16);
    char const* const at = static_cast<char const*>(info.dli_fbase) + offset;
    return first <= at && at < end;
}

// "  #0 place" and so on, one a line.
std::vector<std::string> frames_of(std::string const& report) {
    std::vector<std::string> frames;
    for (auto at = report.find("\n  #"); at != report.npos; at = report.find("\n  #", at + 1)) {
        auto const place = report.find(' ', at + 4) + 1;
        frames.push_back(report.substr(place, report.find('\n', place) - place));
    }
    return frames;
}

// As long as it lives, the thread does not take the signal that the detector sends.
class signal_blocked {
public:
    signal_blocked() {
        sigemptyset(&only_);
        sigaddset(&only_, SIGURG);
        ::pthread_sigmask(SIG_BLOCK, &only_, nullptr);
    }
    ~signal_blocked() { ::pthread_sigmask(SIG_UNBLOCK, &only_, nullptr); }
    static bool has_come() {
        sigset_t pending;
        ::sigpending(&pending);
        return sigismember(&pending, SIGURG) == 1;
    }

private:
    sigset_t only_;
};

} // namespace

TEST_SUITE("runtime.stall") {
    TEST_CASE("A task that keeps its worker too long is reported with name, origin and stack") {
        for (unsigned const workers : {1u, 2u}) {
            mistakes_heard const heard;
            run({.workers = workers, .stall_threshold = 20ms}, [&] {
                with_task_group([&](task_group& group) { spawn_busy_one(group, heard); });
            });
            std::string const beginning = "task 'a busy one', spawned in ";
            REQUIRE(heard.count(beginning) == 1);
            for (std::string const& text : heard.get()) {
                auto const begins = text.find(beginning);
                if (begins == std::string::npos) continue;
                std::string const spawned_in = text.substr(begins + beginning.size());
                CHECK(lies_between(spawned_in, __start_weft_test_spawns, __stop_weft_test_spawns));
                CHECK(text.find(", has kept worker ") != std::string::npos);
                CHECK(text.find(" ms\n  #0 ") != std::string::npos);
                CHECK(std::ranges::any_of(frames_of(text), [](std::string const& frame) {
                    return lies_between(frame, __start_weft_test_keeps, __stop_weft_test_keeps);
                }));
            }
        }
    }

    TEST_CASE("Each stretch is reported once") {
        mistakes_heard const heard;
        run({.workers = 1, .stall_threshold = 10ms}, [&] {
            with_task_group([&](task_group& group) {
                group.start_soon({.name = "twice"}, [&] {
                    keep_worker_until_heard(heard, "twice");
                    auto const until = std::chrono::steady_clock::now() + 50ms; // many more looks
                    while (std::chrono::steady_clock::now() < until) {}
                    CHECK(heard.count("twice") == 1);
                    lowlevel::checkpoint();
                    keep_worker_until_heard(heard, "twice", 2);
                });
            });
        });
        CHECK(heard.count("twice") == 2);
    }

    TEST_CASE("A worker that takes its signal late does not answer for another one") {
        mistakes_heard const heard;
        auto const are_both_reported = [&heard] {
            std::string const report = "a task that blocks signals has kept worker ";
            return heard.count(report + "0") != 0 && heard.count(report + "1") != 0;
        };
        std::atomic<bool> one_is_asked = false, other_is_asked = false;
        run({.workers = 2, .stall_threshold = 10ms}, [&] {
            with_task_group([&](task_group& group) {
                // Each begins a stretch when no signal reaches it any more: it may have been asked before.
                group.start_soon([&] {
                    no_migrate const with_its_thread;
                    signal_blocked const until_the_other_is_asked;
                    lowlevel::checkpoint();
                    while (!signal_blocked::has_come()) {}
                    one_is_asked = true;
                    while (!other_is_asked) {}
                });
                group.start_soon([&] {
                    while (!one_is_asked)
                        lowlevel::checkpoint();
                    no_migrate const with_its_thread;
                    signal_blocked const for_long;
                    lowlevel::checkpoint();
                    while (!signal_blocked::has_come()) {} // nobody waits for the first answer any more
                    other_is_asked = true;
                    auto const limit = std::chrono::steady_clock::now() + 5s;
                    while (!are_both_reported() && std::chrono::steady_clock::now() < limit) {}
                });
            });
        });
        CHECK(are_both_reported());
    }

    TEST_CASE("A task inside a blocking_region keeps no worker") {
        // A busy machine may keep it on its way in or out, which is told, but not each time.
        bool only_the_busy_one = false;
        for (int time = 0; time < 20 && !only_the_busy_one; ++time) {
            mistakes_heard const heard;
            run({.workers = 1, .stall_threshold = 10ms}, [&] {
                std::binary_semaphore opened(0);
                with_task_group([&](task_group& group) {
                    group.start_soon({.name = "blocks"}, [&] {
                        blocking_region region;
                        opened.acquire();
                    });
                    group.start_soon({.name = "busy"}, [&] {
                        lowlevel::checkpoint();
                        keep_worker_until_heard(heard, "'busy'");
                        opened.release();
                    });
                });
            });
            only_the_busy_one = heard.count("'busy'") == 1 && heard.count("'blocks'") == 0;
        }
        CHECK(only_the_busy_one);
    }

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    namespace {
    // To give its memory back takes longer than the threshold.
    struct large_body {
        static constexpr std::size_t size = 256 << 20;
        large_body() noexcept {}
        large_body(large_body const&) noexcept {}
        void operator()() {
            for (std::size_t at = 0; at < size; at += 4096) {
                static_cast<char volatile*>(memory)[at] = 1;
                if (at % (64 << 10) == 0) lowlevel::checkpoint();
            }
            throw std::runtime_error("large");
        }
        char memory[size];
    };
    large_body const a_large_body;

    [[gnu::noinline, gnu::section("weft_test_waits")]] void wait_for_ever() {
        sleep_forever();
        asm volatile(""); // its frame is there while it waits
    }
    } // namespace

    TEST_CASE("A worker that is slow to give a dead task back is none that a task keeps: no two share a block") {
        mistakes_heard const heard;
        run({.workers = 1, .stall_threshold = 2ms}, [&] {
            CHECK_THROWS_AS(
                with_task_group([](task_group& group) { group.start_soon(a_large_body); }),
                exception_group);
            with_task_group([](task_group& group) {
                group.start_soon({.name = "first"}, [] { wait_for_ever(); }); // in the same block
                weft::sleep(20ms); // the monitor has told what it has to tell
                group.start_soon({.name = "second"}, [] { sleep_forever(); });
                wait_all_tasks_blocked();
                std::vector<task_info> const tasks = get_running_tasks();
                for (std::string const name : {"first", "second"})
                    CHECK(std::count_if(tasks.begin(), tasks.end(), [&](task_info const& task) {
                              return task.name == name;
                          }) == 1);
                group.cancel();
            });
        });
        for (std::string const& text : heard.get()) {
            if (text.find("'first'") == text.npos) continue; // what a busy machine keeps is told with its own stack
            CHECK(std::ranges::any_of(frames_of(text), [](std::string const& frame) {
                return lies_between(frame, __start_weft_test_waits, __stop_weft_test_waits);
            }));
        }
    }
#endif

    namespace {
    // Keeps the thread that has it from ending, for many looks of the detector.
    struct slow_to_end {
        bool wanted = false;
        ~slow_to_end() {
            auto const until = std::chrono::steady_clock::now() + 60ms;
            while (wanted && std::chrono::steady_clock::now() < until) {}
        }
    };
    [[gnu::noinline]] void end_this_thread_slowly() {
        thread_local slow_to_end here;
        here.wanted = true;
    }
    } // namespace

    TEST_CASE("Nothing is reported of threads that end with the run, sooner or later") {
        std::optional<mistakes_heard> heard;
        auto const caller = std::this_thread::get_id();
        run({.workers = 3, .stall_threshold = 10ms}, [&] {
            std::atomic<unsigned> running = 0;
            std::atomic<bool> is_slow = false;
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 3; ++task)
                    group.start_soon([&] {
                        ++running;
                        while (running != 3) // each on a worker of its own
                            std::this_thread::yield();
                        if (std::this_thread::get_id() != caller && !is_slow.exchange(true))
                            end_this_thread_slowly();
                    });
            });
            heard.emplace(); // not of those that had to wait for one another
        });
        CHECK(heard->count("a task that blocks signals") == 0);
    }

    TEST_CASE("Nothing is reported without a threshold, nor under sim") {
        mistakes_heard const heard;
        auto const busy = [] {
            auto const until = std::chrono::steady_clock::now() + 30ms;
            while (std::chrono::steady_clock::now() < until) {}
        };
        run({.workers = 1}, busy);
        run({.backend = "sim", .stall_threshold = 1ms}, busy);
        CHECK(heard.get().empty());
    }
}
