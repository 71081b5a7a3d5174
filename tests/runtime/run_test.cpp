#include "support/run_test.hpp"

#include "support/child_process.hpp"
#include "support/gate.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/context_var.hpp>
#include <weft/runtime/detail/service.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

using namespace weft;
using namespace weft::test;
using namespace std::chrono_literals;

namespace {
struct ordinary : std::runtime_error {
    ordinary() : std::runtime_error("ordinary") {}
};
int twice(int number) { return 2 * number; }

context_var<int> kept("kept");

// For a while there is room for the stacks of some threads, and not of all.
child_program const without_threads("without threads", [] {
    std::ifstream pages("/proc/self/statm");
    ::rlim_t used = 0;
    pages >> used;
    ::rlimit before{};
    ::getrlimit(RLIMIT_AS, &before);
    ::rlimit const tight{used * ::rlim_t(::sysconf(_SC_PAGESIZE)) + (::rlim_t(96) << 20), before.rlim_max};
    ::setrlimit(RLIMIT_AS, &tight);
    try {
        run({.workers = 20}, [] {});
    } catch (std::system_error const& refused) {
        std::puts(refused.what());
    }
    ::setrlimit(RLIMIT_AS, &before);
    run({.workers = 20}, [] { std::puts("the next one goes on"); });
});

// Times out, with a value of the thread: what the library keeps for the process is used.
void run_a_timeout(char const* when) {
    kept.set(7);
    run({.workers = 2}, [&] {
        move_on_after(1ns, [&] {
            try {
                lowlevel::checkpoint();
            } catch (cancelled const& cut_short) {
                std::printf("%s: %d, %s\n", when, kept.get(), cut_short.reason());
                throw;
            }
        });
        with_task_group([](task_group& group) { group.start_soon({.stack_size = 1 << 20}, [] {}); });
    });
}

struct runs_at_the_end {
    bool wanted = false;
    ~runs_at_the_end() {
        if (!wanted) return;
        run_a_timeout("at the end");
        run_a_timeout("and again");
        std::fflush(stdout);
    }
} at_the_end;

child_program const run_in_destructor("a run in a static destructor", [] {
    at_the_end.wanted = true;
    run_a_timeout("before");
});

// What a stream has kept is written when all static objects are gone, those of libraries as well.
::ssize_t run_instead_of_writing(void*, char const*, std::size_t size) {
    for (int time = 0; time < 20; ++time)
        run({.workers = 1}, [] { move_on_after(1ns, [] { lowlevel::checkpoint(); }); });
    (void)!::write(STDOUT_FILENO, "the last of all\n", 16);
    return ::ssize_t(size);
}

child_program const run_after_destructors("a run after all static destructors", [] {
    run_a_timeout("before");
    std::fputc('x', ::fopencookie(nullptr, "w", {.read = nullptr,
                                                 .write = run_instead_of_writing,
                                                 .seek = nullptr,
                                                 .close = nullptr}));
});
} // namespace

TEST_SUITE("runtime.run") {
    TEST_CASE("E1: a static object's destructor may use run(), whatever is gone before it") {
        child_end const end = run_child("a run in a static destructor");
        CHECK(end.exit_code == 0);
        CHECK(end.says("and again: 7, cancelled: the deadline has passed"));
        CHECK(end.says("at the end: 7, cancelled: the deadline has passed"));
    }

    TEST_CASE("E1: run() may be used when all static objects have been destroyed") {
        child_end const end = run_child("a run after all static destructors");
        CHECK(end.exit_code == 0);
        CHECK(end.says("the last of all"));
    }

    TEST_CASE("E1: run gives what its function returns, by value") {
        CHECK(run([] { return 7; }) == 7);
        CHECK(run(twice, 4) == 8);
        CHECK(*run([] { return std::make_unique<int>(3); }) == 3);
        CHECK(*run([](std::unique_ptr<int> given) { return given; }, std::make_unique<int>(5)) == 5);
        int value = 0;
        run([](int& given) { given = 9; }, std::ref(value));
        CHECK(value == 9);
        static_assert(std::is_void_v<decltype(run([] {}))>);
        int local = 1;
        static_assert(std::is_same_v<decltype(run([&]() -> int& { return local; })), int>);
    }

    TEST_CASE("E1: run rethrows what its function throws, the same object") {
        for (unsigned const workers : {1u, 2u, 4u}) {
            CHECK_THROWS_AS(run({.workers = workers}, [] { throw ordinary(); }), ordinary);
            CHECK_THROWS_AS(run({.workers = workers}, [] { throw 5; }), int);
            void const* thrown = nullptr;
            try {
                run({.workers = workers}, [&] {
                    try {
                        throw ordinary();
                    } catch (ordinary const& error) {
                        thrown = &error;
                        throw;
                    }
                });
            } catch (ordinary const& error) {
                CHECK(static_cast<void const*>(&error) == thrown);
            }
        }
    }

    TEST_CASE("E1: after run every task has ended and its threads are joined") {
        unsigned const threads = count_threads();
        for (unsigned const workers : {1u, 2u, 4u, 16u}) {
            std::atomic<int> ended{0};
            run({.workers = workers}, [&] {
                with_task_group([&](task_group& group) {
                    for (int task = 0; task < 50; ++task)
                        group.start_soon([&] {
                            weft::sleep(100us);
                            ++ended;
                        });
                });
            });
            CHECK(ended == 50);
            wait_for_threads(threads);
            CHECK(get_running_tasks().empty());
        }
    }

    TEST_CASE("E2: run inside a run of the same thread is refused, and harms nothing") {
        run_test([] {
            for (char const* const backend : {"epoll", "sim"})
                CHECK_THROWS_WITH_AS(run({.backend = backend}, [] {}),
                                     "run() was called inside a run() of the same thread", std::logic_error);
            lowlevel::checkpoint();
        });
    }

    TEST_CASE("E2: runs in two threads are independent; a thread of its own may run one inside a run") {
        std::vector<std::thread> threads;
        std::atomic<int> sum{0};
        for (int thread = 0; thread < 4; ++thread)
            threads.emplace_back([&] {
                for (int time = 0; time < 10; ++time)
                    sum += run({.workers = 2}, [] {
                        int inner = 0;
                        with_task_group([&](task_group& group) {
                            group.start_soon([&] { inner = 1; });
                        });
                        return inner;
                    });
            });
        for (auto& thread : threads)
            thread.join();
        CHECK(sum == 40);
        run([] {
            int inner = 0;
            std::thread([&] { inner = run([] { return 3; }); }).join();
            CHECK(inner == 3);
            CHECK(get_running_tasks().size() == 1);
        });
    }

    TEST_CASE("E3: an unknown backend is refused") {
        CHECK_THROWS_AS(run({.backend = "trio"}, [] {}), std::invalid_argument);
        CHECK_THROWS_AS(run({.backend = ""}, [] {}), std::invalid_argument);
        try {
            run({.backend = "trio"}, [] {});
        } catch (std::invalid_argument const& error) {
            CHECK(std::string(error.what()).find("trio") != std::string::npos);
        }
    }

    TEST_CASE("E3: absurd options are refused before anything is started") {
        unsigned const threads = count_threads();
        bool ran = false;
        auto const body = [&] { ran = true; };
        CHECK_THROWS_WITH_AS(run({.workers = 100'000}, body), doctest::Contains("run_options::workers: 100000"),
                             std::invalid_argument);
        for (char const* const backend : {"epoll", "sim"})
            CHECK_THROWS_WITH_AS(run({.backend = backend, .workers = ~0u}, body),
                                 doctest::Contains("run_options::workers: 4294967295"), std::invalid_argument);
        for (std::size_t const size : {std::size_t(0), std::size_t(1), ~std::size_t(0)}) {
            std::string const text = "run_options::stack_size: " + std::to_string(size) + " is not between";
            CHECK_THROWS_WITH_AS(run({.stack_size = size}, body), doctest::Contains(text.c_str()),
                                 std::invalid_argument);
        }
        CHECK_FALSE(ran);
        CHECK(count_threads() <= threads);
        CHECK(run([] { return 1; }) == 1);
    }

    TEST_CASE("E3: a task's absurd stack size is refused where it is spawned") {
        run_test([] {
            with_task_group([](task_group& group) {
                for (std::size_t const size : {std::size_t(1), std::size_t(100), ~std::size_t(0)}) {
                    std::string const text = "task_options::stack_size " + std::to_string(size) + " is not between";
                    auto const told = doctest::Contains(text.c_str());
                    CHECK_THROWS_WITH_AS(group.start_soon({.stack_size = size}, [] {}), told,
                                         std::invalid_argument);
                    CHECK_THROWS_WITH_AS(group.create_task({.stack_size = size}, [] {}), told,
                                         std::invalid_argument);
                    CHECK_THROWS_WITH_AS(group.start({.stack_size = size}, [](task_status<>&) {}), told,
                                         std::invalid_argument);
                }
            });
        });
    }

    TEST_CASE("E3: stack_size reaches the tasks") {
        for (std::size_t const size : {std::size_t(64) * 1024, std::size_t(1024) * 1024})
            run({.stack_size = size}, [size] {
                CHECK(get_current_task().stack_size >= size);
                with_task_group([&](task_group& group) {
                    group.start_soon([&] { CHECK(get_current_task().stack_size >= size); });
                    group.start_soon({.stack_size = 2 * size},
                                     [&] { CHECK(get_current_task().stack_size >= 2 * size); });
                });
            });
    }

    TEST_CASE("E3: run() says which of its workers no thread could be had for, and the next one goes on") {
        if (slowdown > 1) return; // the sanitizers need address space without bounds
        child_end const end = run_child("without threads");
        CHECK(end.says("run(): no thread for worker "));
        CHECK(end.says(" of 20"));
        CHECK(end.says("the next one goes on"));
    }

    TEST_CASE("E9: all_backends names those that run takes") {
        auto const backends = all_backends();
        CHECK(std::find(backends.begin(), backends.end(), "epoll") != backends.end());
        CHECK(std::find(backends.begin(), backends.end(), "sim") != backends.end());
        for (std::string const& backend : backends)
            CHECK(run({.backend = backend}, [] { return 1; }) == 1);
    }

    TEST_CASE("E9, M8: cancelled is no std::exception and cannot be made by users") {
        static_assert(!std::is_base_of_v<std::exception, cancelled>);
        static_assert(!std::is_default_constructible_v<cancelled>);
        static_assert(std::is_final_v<cancelled>);
        static_assert(!std::is_constructible_v<cancelled, std::string>);
    }

    TEST_CASE("E10: run returns only after the first task's children have unwound") {
        run_test([] {});
        for (unsigned const workers : {1u, 4u}) {
            std::atomic<int> unwound{0};
            struct counter {
                std::atomic<int>& count;
                ~counter() { ++count; }
            };
            CHECK_THROWS_AS(run({.workers = workers},
                                [&] {
                                    with_task_group([&](task_group& group) {
                                        for (int task = 0; task < 20; ++task)
                                            group.start_soon([&] {
                                                counter const counts{unwound};
                                                sleep_forever();
                                            });
                                        wait_all_tasks_blocked();
                                        throw ordinary();
                                    });
                                }),
                            exception_group);
            CHECK(unwound == 20);
        }
    }

    TEST_CASE("E1: a run may be made in a catch block, and what is caught there stays caught") {
        try {
            throw 17;
        } catch (int) {
            run({.workers = 2}, [] {
                check(!std::current_exception(), "the first task starts with a clean slate");
                try {
                    throw ordinary();
                } catch (ordinary const&) {
                    lowlevel::checkpoint();
                }
            });
            int again = 0;
            try {
                throw;
            } catch (int number) {
                again = number;
            }
            CHECK(again == 17);
        }
    }

    TEST_CASE("E1: a foreign cancellation that leaves the first task becomes task_cancelled") {
        std::exception_ptr foreign;
        run([&] {
            cancel_scope scope;
            scope.run([&] {
                scope.cancel();
                try {
                    lowlevel::checkpoint();
                } catch (cancelled const&) {
                    foreign = std::current_exception();
                }
            });
        });
        CHECK_THROWS_AS(run([&] { std::rethrow_exception(foreign); }), task_cancelled);
    }

    TEST_CASE("M6: with one worker no other task runs between two checkpoints") {
        run_test({.workers = {1}}, [] {
            int plain = 0; // no lock, no atomic
            with_task_group([&](task_group& group) {
                for (int task = 0; task < 50; ++task)
                    group.start_soon([&] {
                        for (int time = 0; time < 20; ++time) {
                            int const before = plain;
                            plain = before + 1;
                            lowlevel::checkpoint();
                        }
                    });
            });
            CHECK(plain == 1000);
        });
    }

    TEST_CASE("TR80: a foreign thread wakes a runtime in which everything sleeps") {
        run_test({.times = 20}, [] {
            gate opened;
            std::thread opener([&] {
                std::this_thread::yield();
                opened.open();
            });
            opened.wait();
            opener.join();
        });
    }

    TEST_CASE("M5: what was written before a wake-up is visible after it") {
        run_test({.times = 20}, [] {
            for (int time = 0; time < 50; ++time) {
                int plain = 0;
                gate opened;
                with_task_group([&](task_group& group) {
                    group.start_soon([&] {
                        plain = 1;
                        opened.open();
                    });
                    opened.wait();
                    CHECK(plain == 1);
                    plain = 2;
                    group.start_soon([&] { plain = plain == 2 ? 3 : -1; });
                });
                CHECK(plain == 3);
            }
        });
    }

    TEST_CASE("E11: what serves the run outlives every task and is closed before run() returns, "
              "last made first") {
        struct journal : detail::service {
            journal(std::vector<int>& in, int which) : log(in), number(which) {}
            void close() noexcept override { log.push_back(number); }
            ~journal() override { log.push_back(-number); }
            std::vector<int>& log;
            int number;
        };
        struct first final : journal {
            using journal::journal;
        };
        struct second final : journal {
            using journal::journal;
        };
        for (std::string backend : {"epoll", "sim"})
            for (unsigned workers : {1u, 2u, 4u}) {
                std::vector<int> log;
                run({.backend = backend, .workers = workers}, [&] {
                    with_task_group([&](task_group& group) {
                        group.start_soon([&] {
                            auto& services = detail::current_services("test");
                            services.get<first>([&] { return std::make_unique<first>(log, 1); });
                            services.get<second>([&] { return std::make_unique<second>(log, 2); });
                        });
                    });
                    lowlevel::checkpoint();
                    log.push_back(0); // the last task
                });
                CHECK(log == std::vector<int>{0, 2, 1, -2, -1});
            }
    }

    TEST_CASE("E12: what escapes a task leaves run(), whichever worker it ran on") {
        for (std::string backend : {"epoll", "sim"})
            for (unsigned workers : {1u, 2u, 4u}) {
                std::size_t errors = 0;
                try {
                    run({.backend = backend, .workers = workers}, [&] {
                        with_task_group([&](task_group& group) {
                            for (int task = 0; task < 8; ++task)
                                group.start_soon([] {
                                    lowlevel::checkpoint(); // all run, on all workers
                                    throw ordinary();
                                });
                            sleep_forever();
                        });
                    });
                } catch (exception_group const& failed) {
                    failed.handle([&](ordinary const&) { ++errors; });
                }
                CHECK(errors >= 1);
                CHECK_THROWS_AS(
                    run({.backend = backend, .workers = workers}, [] { throw ordinary(); }),
                    ordinary);
            }
    }
}
