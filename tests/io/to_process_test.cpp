#include <weft/io/to_process.hpp>

#include "io/src/process_pool.hpp"
#include "io/src/worker_protocol.hpp"
#include "worker_processes.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_SUITE_BEGIN("io.to_process");

namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::immense;
using weft::test::is_gone;
using weft::test::run_with_processes;
using weft::test::shared_flag;
using weft::test::square;
using weft::test::text_of_failure;
using weft::test::under_sanitizer;
using weft::test::worker;
namespace to_process = weft::to_process;

// So many octets more than there are.
class little_memory {
public:
    explicit little_memory(std::size_t more) {
        std::size_t pages = 0;
        std::ifstream("/proc/self/statm") >> pages;
        ::getrlimit(RLIMIT_AS, &before_);
        ::rlimit const low{pages * std::size_t(::sysconf(_SC_PAGESIZE)) + more, before_.rlim_max};
        ::setrlimit(RLIMIT_AS, &low);
    }
    ~little_memory() { ::setrlimit(RLIMIT_AS, &before_); }
    little_memory(little_memory const&) = delete;
    little_memory& operator=(little_memory const&) = delete;

private:
    ::rlimit before_{};
};

// Not known before the program's initialisers have run.
std::vector<std::string> const words = {"warp", "weft"};
int calls_in_this_process = 0;

struct point {
    int x, y;
    friend bool operator==(point const&, point const&) = default;
};

enum class colour : unsigned char { red, green };

struct taught {
    std::string name;
    std::vector<point> places;
    template <class Archive> void serialize(Archive& archive) { archive(name, places); }
    friend bool operator==(taught const&, taught const&) = default;
};

struct no_default {
    explicit no_default(int value) : inside(value) {}
    int inside;
};

struct unknown {
    std::string text;
};

using weft::detail::transportable;
static_assert(transportable<int> && transportable<point> && transportable<colour>);
static_assert(transportable<std::vector<std::map<std::string, std::optional<point>>>>);
static_assert(transportable<std::tuple<std::pair<int, taught>, std::variant<int, std::string>>>);
static_assert(transportable<no_default> && transportable<std::array<double, 3>>);
static_assert(!transportable<int*> && !transportable<std::string_view> && !transportable<unknown>);
static_assert(!transportable<std::vector<int*>> && !transportable<std::optional<unknown>>);
static_assert(!transportable<void (*)()> && !transportable<std::reference_wrapper<int>>);
static_assert(transportable<std::multimap<int, point>> && !transportable<std::multimap<int, unknown>>);
static_assert(!transportable<std::multiset<int*>> && !transportable<std::unordered_multiset<unknown>>);
static_assert(!transportable<std::unordered_multimap<int, unknown>> && !transportable<std::initializer_list<int>>);
static_assert(!transportable<std::pair<int*[2], int>> && transportable<std::tuple<>>);

using weft::detail::received_in_place;
static_assert(received_in_place<no_default> && received_in_place<std::map<int, std::vector<point>>>);
static_assert(!received_in_place<std::vector<no_default>> && !received_in_place<std::optional<no_default>>);
static_assert(!received_in_place<std::multimap<int, std::vector<no_default>>>);
static_assert(!received_in_place<std::variant<int, no_default>> && !received_in_place<std::set<no_default>>);

weft::test::child_program const without_streams("calls without standard streams", [] {
    int result = 0;
    weft::run([&result] {
        for (int stream = 0; stream < 3; ++stream) // the run has its descriptors
            ::close(stream);
        result = to_process::run_sync(square, 5);
    });
    if (result != 25) ::_exit(1);
});

// A standard input that does not end at once, whatever the one of this program is.
class something_to_read {
public:
    something_to_read() {
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        weft::unique_fd const reader(ends[0]);
        weft::unique_fd const writer(ends[1]);
        check(::write(writer.get(), "x", 1) == 1, "written");
        check(::dup2(reader.get(), STDIN_FILENO) == STDIN_FILENO, "in its place");
    }
    ~something_to_read() { ::dup2(before_.get(), STDIN_FILENO); }
    something_to_read(something_to_read const&) = delete;
    something_to_read& operator=(something_to_read const&) = delete;

private:
    weft::unique_fd before_{::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)};
};

class own_error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

} // namespace

TEST_CASE("P10: functions and captureless lambdas run in another process, which is used again") {
    run_with_processes([] {
        check(to_process::run_sync(square, 7) == 49, "a function");
        check(to_process::run_sync(&square, 8) == 64, "its address");
        check(to_process::run_sync([](int a, int b) { return a - b; }, 7, 5) == 2, "in order");
        check(to_process::run_sync([](auto const& text) { return text + "!"; }, "a"s) == "a!",
              "generic");
        check(to_process::run_sync([](std::string const& text) { return text; }, "b") == "b",
              "a literal arrives as a string");
        to_process::run_sync([] {});
        pid_t const first = worker();
        check(first != ::getpid() && worker() == first, "elsewhere, and in the same place again");
    });
}

TEST_CASE("P10: global variables of the worker are initialised, and its own") {
    run_with_processes([] {
        check(to_process::run_sync([] { return words; }) == words, "initialised");
        check(to_process::run_sync([] { return ++calls_in_this_process; }) == 1, "its own");
        check(to_process::run_sync([] { return ++calls_in_this_process; }) == 2, "and they stay");
        check(calls_in_this_process == 0, "not ours");
    });
}

TEST_CASE("P2: what can be sent comes back as it was") {
    run_with_processes([] {
        auto const echo = [](auto const& value) {
            auto const back = to_process::run_sync(
                [](std::decay_t<decltype(value)> same) { return same; }, value);
            check(back == value, "the same");
        };
        echo(std::numeric_limits<double>::denorm_min());
        echo(true);
        echo(colour::green);
        echo(point{1, -2});
        echo("\0\n\xff"s);
        echo(std::vector<bool>{true, false, true});
        echo(std::vector<point>(1000, point{3, 4}));
        echo(std::map<std::string, std::vector<int>>{{"a", {1, 2}}, {"", {}}});
        echo(std::set<std::string>{"x", "y"});
        echo(std::multimap<int, point>{{1, {1, 2}}, {1, {3, 4}}});
        echo(std::optional<point>{{5, 6}});
        echo(std::optional<std::string>());
        echo(std::tuple<int, std::string, point>{1, "two", {3, 4}});
        echo(std::variant<int, std::string>{"text"});
        echo(std::array<point, 2>{{{1, 2}, {3, 4}}});
        echo(std::chrono::milliseconds(5));
        echo(taught{"weft", {{1, 2}}});
        check(to_process::run_sync([](no_default value) { return value; }, no_default(5)).inside ==
                  5,
              "no default constructor is needed for octets");
        std::string const much(50'000'000, 'x');
        echo(much);
    });
}

TEST_CASE("P2: standard exceptions come back as themselves, others as an error that names them") {
    run_with_processes([] {
        pid_t const before = worker();
        check_throws<std::out_of_range>(
            [] { to_process::run_sync([] { throw std::out_of_range("torn"); }); }, "itself");
        check_throws<std::bad_alloc>([] { to_process::run_sync([] { throw std::bad_alloc(); }); },
                                     "without a text");
        try {
            to_process::run_sync(
                [] { throw std::system_error(ENOENT, std::generic_category(), "what"); });
            check(false, "thrown");
        } catch (std::system_error const& failure) {
            check(failure.code() == std::errc::no_such_file_or_directory &&
                      failure.what() == "what: No such file or directory"s,
                  failure.what());
        }
        check(text_of_failure([] {
                  to_process::run_sync([] { throw own_error("its text"); });
              }).find("own_error: its text") != std::string::npos,
              "its type's name and its text");
        check(text_of_failure([] { to_process::run_sync([] { throw 42; }); }) == "int",
              "no std::exception");
        check_throws<std::runtime_error>(
            [] { to_process::run_sync([] { throw std::runtime_error("x"); }); }, "thrown");
        check(worker() == before, "the worker is as good as before");
    });
}

TEST_CASE("P2: a result that is too large is an error, and the worker stays") {
    run_with_processes([] {
        pid_t const before = worker();
        check_throws<std::length_error>([] { to_process::run_sync([] { return immense(); }); },
                                        "more than a frame");
        if (!under_sanitizer) // which ends the process
            check_throws<std::bad_alloc>(
                [] {
                    to_process::run_sync([] {
                        std::vector<char> much;
                        much.reserve(std::numeric_limits<std::size_t>::max() / 4);
                        return much;
                    });
                },
                "more than memory");
        check(worker() == before, "the worker is as good as before");
    });
}

TEST_CASE("P2: a result that a worker finds no memory to send is bad_alloc, and the worker stays") {
    if (under_sanitizer) return; // whose shadow is beyond any limit
    run_with_processes([] {
        pid_t const before = worker();
        check_throws<std::bad_alloc>(
            [] {
                to_process::run_sync([] {
                    static little_memory const limit(std::size_t(96) << 20); // for one of them
                    std::string result(std::size_t(64) << 20, 'x');
                    ++calls_in_this_process;
                    return result;
                });
            },
            "no memory for two");
        check(worker() == before, "the worker is as good as before");
        check(to_process::run_sync([] { return calls_in_this_process; }) == 1, "the function came to its end");
    });
}

TEST_CASE("P2: an exception whose text cannot be sent comes without it, and the worker stays") {
    if (under_sanitizer) return; // whose shadow is beyond any limit
    run_with_processes([] {
        pid_t const before = worker();
        try {
            to_process::run_sync([] {
                static little_memory const limit(std::size_t(160) << 20); // for two of them
                throw std::domain_error(std::string(std::size_t(64) << 20, 'x'));
            });
            check(false, "thrown");
        } catch (std::domain_error const& failure) {
            check(failure.what() == "its text could not be sent: std::bad_alloc"s, failure.what());
        }
        check(worker() == before, "the worker is as good as before");
    });
}

TEST_CASE(
    "P2, P4: a result that this process has no memory for is bad_alloc, and the next call works") {
    if (under_sanitizer) return; // whose shadow is beyond any limit
    run_with_processes([] {
        pid_t const before = worker();
        {
            little_memory const limit(std::size_t(32) << 20);
            check_throws<std::bad_alloc>(
                [] {
                    to_process::run_sync([] { return std::string(std::size_t(100) << 20, 'x'); });
                },
                "more than memory");
        }
        check(is_gone(before), "what it would still say is for nobody");
        check(worker() != before, "another one");
    });
}

TEST_CASE("P1: arguments that cannot be sent are an error before a worker is touched") {
    weft::test::run_test({.workers = {1}, .seeds = {}}, [] {
        weft::capacity_limiter limiter(1);
        check_throws<std::length_error>(
            [&] {
                to_process::run_sync(
                    {.limiter = &limiter}, [](immense) {}, immense());
            },
            "too much");
        check(::waitpid(-1, nullptr, WNOHANG) == -1, "no process was started");
    });
}

TEST_CASE("P1, T2: a cancelled caller's function does not run") {
    run_with_processes([] {
        shared_flag const ran;
        weft::cancel_scope scope;
        scope.cancel();
        check(!scope.run([&] { to_process::run_sync(shared_flag::set, ran.path()); }), "cut short");
        weft::capacity_limiter limiter(1);
        int other = 0;
        limiter.acquire_on_behalf_of(&other);
        weft::cancel_scope waiting;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                waiting.run([&] {
                    to_process::run_sync({.limiter = &limiter}, shared_flag::set, ran.path());
                });
            });
            weft::wait_all_tasks_blocked();
            waiting.cancel();
        });
        limiter.release_on_behalf_of(&other);
        check(!ran.is_set() && limiter.borrowed_tokens() == 0, "neither ran, no token is lost");
    });
}

TEST_CASE("P3: a call that is not cancellable is finished first") {
    run_with_processes([] {
        worker(); // is there
        shared_flag const began;
        shared_flag const cancelled;
        weft::cancel_scope scope;
        std::optional<int> got;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                bool const through = scope.run([&] {
                    got = to_process::run_sync(
                        [](std::string const& started, std::string const& may_end) {
                            shared_flag::set(started);
                            while (!shared_flag::is_set(may_end))
                                std::this_thread::yield();
                            return 5;
                        },
                        began.path(), cancelled.path());
                    weft::lowlevel::checkpoint();
                });
                check(!through, "cancelled afterwards");
            });
            while (!began.is_set())
                weft::sleep(1ms);
            scope.cancel();
            weft::wait_all_tasks_blocked(); // what the cancellation does to the call is done
            shared_flag::set(cancelled.path());
        });
        check(got == 5, "its value came");
    });
}

TEST_CASE("P10: a worker's connection is not inherited by the programs that a function starts") {
    run_with_processes([] {
        check(to_process::run_sync([] {
                  for (int fd = 3; fd < 100; ++fd)
                      if (int const flags = ::fcntl(fd, F_GETFD);
                          flags >= 0 && (flags & FD_CLOEXEC) == 0)
                          return fd;
                  return -1;
              }) == -1,
              "closed on exec");
    });
}

TEST_CASE("P6: calls work in a program whose standard streams are closed") {
    CHECK(weft::test::run_child("calls without standard streams").exit_code == 0);
}

TEST_CASE("P6: a function's standard streams are the null device: its output goes nowhere, it reads nothing") {
    something_to_read const for_whom_inherits;
    run_with_processes([] {
        auto const streams = to_process::run_sync([] {
            std::vector<std::string> files;
            for (char const* const stream : {"0", "1", "2"})
                files.push_back(std::filesystem::read_symlink("/proc/self/fd/"s + stream));
            return files;
        });
        check(streams == std::vector<std::string>(3, "/dev/null"),
              streams[0] + " " + streams[1] + " " + streams[2]);
        auto const got = to_process::run_sync([] {
            std::puts("this is not seen");
            std::cout << "nor this" << std::endl;
            std::cerr << std::string(1'000'000, 'x');
            std::fflush(stdout);
            return std::getchar();
        });
        check(got == EOF, "nothing to read");
        check(to_process::run_sync(square, 2) == 4, "and the worker is as good as before");
    });
}

TEST_CASE(
    "P3, P5: wherever a cancellation hits a call, no process is left, and the next call works") {
    unsigned const points =
        weft::test::cancel_at_every_suspension_point([](weft::test::attempt& at) {
            weft::capacity_limiter limiter(1);
            std::optional<int> got;
            bool const through = at.run([&] {
                got = to_process::run_sync({.cancellable = true, .limiter = &limiter}, square, 4);
            });
            check(!through || got == 16, "its value");
            check(limiter.borrowed_tokens() == 0, "no token is lost");
            check(to_process::run_sync({.limiter = &limiter}, square, 5) == 25, "the next one");
        });
    CHECK(points >= 2);
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("P8: the limiter bounds the processes, one a CPU by default") {
    run_with_processes([] {
        auto& by_default = to_process::current_default_process_limiter();
        check(&by_default == &to_process::current_default_process_limiter(), "one for the run");
        check(by_default.total_tokens() == double(std::thread::hardware_concurrency()), "CPUs");
        weft::capacity_limiter limiter(2);
        std::mutex lock;
        std::set<pid_t> seen;
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 10; ++task)
                group.start_soon([&] {
                    pid_t const where =
                        to_process::run_sync({.limiter = &limiter}, [] { return ::getpid(); });
                    std::lock_guard const guard(lock);
                    seen.insert(where);
                });
        });
        check(!seen.empty() && seen.size() <= 2, "no more than two");
        weft::capacity_limiter none(0);
        check(!weft::move_on_after(10ms,
                                   [&] { to_process::run_sync({.limiter = &none}, square, 2); }),
              "no token, no call");
    });
}

TEST_CASE("hostile sizes are noticed before memory is asked for") {
    weft::detail::frame_writer out;
    out.write_number(std::uint64_t(1) << 60);
    weft::detail::frame_reader in(out.data());
    CHECK_THROWS_AS(weft::detail::receive_value<std::vector<std::string>>(in), std::runtime_error);
    weft::detail::frame_reader again(out.data());
    CHECK_THROWS_AS(weft::detail::receive_value<std::string>(again), std::runtime_error);
    weft::detail::frame_reader text(out.data());
    CHECK_THROWS_AS(text.read_text(), std::runtime_error);
    weft::detail::frame_reader nothing{weft::bytes_view()};
    CHECK_THROWS_AS(weft::detail::receive_value<int>(nothing), std::runtime_error);
}

TEST_CASE("outside of a task a call is refused") {
    CHECK_THROWS_AS(to_process::run_sync(square, 2), weft::no_event_loop_error);
    CHECK_THROWS_AS(to_process::current_default_process_limiter(), weft::no_event_loop_error);
}

TEST_SUITE_END();
