#include <weft/io/to_process.hpp>

#include "io/src/process_pool.hpp"
#include "io/src/worker_protocol.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>

#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
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
#include <variant>
#include <vector>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_SUITE_BEGIN("io.to_process");

namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using weft::test::check;
using weft::test::check_throws;
namespace to_process = weft::to_process;

// A worker process that finds this in its environment never greets.
constexpr char const* silence = "WEFT_TEST_SILENT_WORKER";

[[maybe_unused]] bool const silent = [] {
    if (::program_invocation_name != weft::detail::worker_name + ""s) return false;
    while (std::getenv(silence) != nullptr)
        ::pause();
    return true;
}();

struct silent_workers {
    silent_workers() { ::setenv(silence, "1", 1); }
    ~silent_workers() { ::unsetenv(silence); }
};

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

// Also: no worker process is left, dead or alive.
void run_with_processes(std::function<void()> const& body) {
    weft::test::run_test({.seeds = {}}, body);
    ::siginfo_t info{};
    int const found = ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
    CHECK(found == -1);
    CHECK(errno == ECHILD);
}

constexpr bool under_sanitizer = weft::test::slowdown != 1;

std::string text_of_failure(std::function<void()> const& call) {
    try {
        call();
    } catch (std::exception const& failure) {
        return failure.what();
    }
    return {};
}

int square(int number) { return number * number; }

pid_t worker() {
    return to_process::run_sync([] { return ::getpid(); });
}

// Not known before the program's initialisers have run.
std::vector<std::string> const words = {"warp", "weft"};
int calls_in_this_process = 0;

// An octet that this process and its workers share.
class shared_flag {
public:
    shared_flag() : file_(int(::memfd_create("flag", 0))) {
        check(::ftruncate(file_.get(), 1) == 0, "a byte");
    }
    std::string path() const {
        return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(file_.get());
    }
    bool is_set() const {
        char octet = 0;
        return ::pread(file_.get(), &octet, 1, 0) == 1 && octet == 'x';
    }
    static bool is_set(std::string const& path) {
        weft::unique_fd const file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        char octet = 0;
        return ::pread(file.get(), &octet, 1, 0) == 1 && octet == 'x';
    }
    static void set(std::string const& path) {
        weft::unique_fd const file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
        (void)!::pwrite(file.get(), "x", 1, 0);
    }

private:
    weft::unique_fd file_;
};

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

// Would be longer than a frame; its memory is not looked at.
struct immense {
    template <class Archive> void save(Archive& archive) const {
        archive(cereal::binary_data(this, weft::detail::largest_frame + 1));
    }
    template <class Archive> void load(Archive&) {}
};

weft::test::child_program const without_streams("calls without standard streams", [] {
    int result = 0;
    weft::run([&result] {
        for (int stream = 0; stream < 3; ++stream) // the run has its descriptors
            ::close(stream);
        result = to_process::run_sync(square, 5);
    });
    if (result != 25) ::_exit(1);
});

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
        check(::kill(before, 0) != 0, "what it would still say is for nobody");
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
        weft::cancel_scope scope;
        std::optional<int> got;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                bool const through = scope.run([&] {
                    got = to_process::run_sync(
                        [](std::string const& flag) {
                            shared_flag::set(flag);
                            std::this_thread::sleep_for(50ms);
                            return 5;
                        },
                        began.path());
                    weft::lowlevel::checkpoint();
                });
                check(!through, "cancelled afterwards");
            });
            while (!began.is_set())
                weft::sleep(1ms);
            scope.cancel();
        });
        check(got == 5, "its value came");
    });
}

TEST_CASE("P3: a cancellable call kills its process, which is reaped before the caller leaves") {
    run_with_processes([] {
        pid_t const before = worker();
        bool const finished = weft::move_on_after(20ms, [] {
            to_process::run_sync({.cancellable = true}, [] {
                ::signal(SIGTERM, SIG_IGN);
                std::this_thread::sleep_for(1000s);
            });
        });
        check(!finished && ::kill(before, 0) != 0 && errno == ESRCH, "gone");
        check(worker() != before, "another one");
    });
}

TEST_CASE("P4, P11: a process that ends is an error that says how, and the next call works") {
    run_with_processes([] {
        auto const failure_of = [](auto function) {
            try {
                to_process::run_sync(function);
            } catch (weft::broken_worker_process const& broken) {
                check(to_process::run_sync(square, 3) == 9, "the pool recovered");
                return std::string(broken.what());
            }
            return "nothing"s;
        };
        if (!under_sanitizer) // which has its own idea of it
            check(failure_of([] { ::raise(SIGSEGV); }).ends_with("was ended by SIGSEGV"), "signal");
        check(failure_of([] { ::raise(SIGKILL); }).ends_with("was ended by SIGKILL"), "signal");
        check(failure_of([] { std::_Exit(3); }).ends_with("ended with exit status 3"), "status");
        check(failure_of([] { std::exit(0); }).ends_with("ended with exit status 0"), "exit()");
        check(failure_of([] {
                  for (int fd = 3; fd < 100; ++fd)
                      ::close(fd);
              }) != "nothing",
              "one that closes its connection");
        check(failure_of([] {
                  for (int fd = 3; fd < 100; ++fd)
                      (void)!::write(fd, "nonsense, and enough of it", 26);
                  std::this_thread::sleep_for(1000s);
              }).find("protocol") != std::string::npos,
              "one that talks nonsense");
    });
}

TEST_CASE("P4, P11: a process that the function left behind does not hide the worker's end") {
    run_with_processes([] {
        for (bool const executes : {false, true})
            check(text_of_failure([executes] {
                      to_process::run_sync(
                          [](bool other_program) {
                              if (::fork() == 0) {
                                  if (other_program)
                                      ::execl("/bin/sleep", "sleep", "1000", nullptr);
                                  for (;;)
                                      ::pause();
                              }
                              std::_Exit(3);
                          },
                          executes);
                  }).ends_with("ended with exit status 3"),
                  "noticed at once");
        check(to_process::run_sync(square, 3) == 9, "the pool recovered");
    });
}

TEST_CASE("P11: an answer that was sent before the process ended arrives") {
    // Blocks the only worker until the answer is there and its sender is not.
    auto const end_once_it_has_answered = [](pid_t victim, int size) {
        for (int fd = 3, there = 0; there < size; fd = fd < 100 ? fd + 1 : 3) {
            int domain = 0;
            ::socklen_t length = sizeof domain;
            if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 ||
                domain != AF_UNIX || ::ioctl(fd, FIONREAD, &there) != 0)
                there = 0;
        }
        ::kill(victim, SIGKILL);
        ::siginfo_t info{};
        ::waitid(P_PID, ::id_t(victim), &info, WEXITED | WNOWAIT);
    };
    weft::test::run_test({.workers = {1}, .seeds = {}}, [&] {
        pid_t const victim = worker();
        shared_flag const go;
        constexpr int size = 10'000;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                std::string const got = to_process::run_sync(
                    [](std::string const& flag, int length) {
                        while (!shared_flag::is_set(flag))
                            std::this_thread::yield();
                        return std::string(std::size_t(length), 'x');
                    },
                    go.path(), size);
                check(got == std::string(size, 'x'), "all of it");
            });
            weft::wait_all_tasks_blocked();
            shared_flag::set(go.path());
            end_once_it_has_answered(victim, size);
        });
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

TEST_CASE("P4, P7: a worker that died while it was idle is passed over") {
    run_with_processes([] {
        pid_t const before = worker();
        ::kill(before, SIGKILL);
        ::siginfo_t info{};
        ::waitid(P_PID, ::id_t(before), &info, WEXITED | WNOWAIT);
        check(worker() != before, "another one");
    });
}

TEST_CASE("P5: a worker that does not greet in time is killed and reaped, and the next call works") {
    CHECK(weft::detail::process_pool().time_to_greet == 20s);
    run_with_processes([] {
        auto& pool = weft::detail::current_services("a test").get<weft::detail::process_pool>(
            [] { return std::make_unique<weft::detail::process_pool>(); });
        {
            silent_workers const from_now_on;
            pool.time_to_greet = 100ms;
            check(text_of_failure([] { to_process::run_sync(square, 2); })
                          .find("did not begin in time") != std::string::npos,
                  "said so");
            check(::waitpid(-1, nullptr, WNOHANG) == -1, "killed and reaped");
            pool.time_to_greet = 1000s;
            bool const finished = weft::move_on_after(
                50ms, [] { to_process::run_sync(square, 2); });
            check(!finished && ::waitpid(-1, nullptr, WNOHANG) == -1, "cancelled while it starts");
        }
        pool.time_to_greet = 20s;
        check(to_process::run_sync(square, 3) == 9, "the next one");
    });
}

TEST_CASE("no thread and no zombie is left when calls were killed, abandoned and refused") {
    unsigned const before = weft::test::count_threads();
    for (unsigned const workers : {1u, 2u}) {
        weft::run({.workers = workers}, [] {
            weft::capacity_limiter none(0);
            weft::with_task_group([&](weft::task_group& group) {
                for (int task = 0; task < 3; ++task)
                    group.start_soon([] {
                        check_throws<weft::broken_worker_process>(
                            [] { to_process::run_sync([] { ::raise(SIGKILL); }); }, "killed");
                        check(!weft::move_on_after(20ms,
                                                   [] {
                                                       to_process::run_sync(
                                                           {.cancellable = true}, [] {
                                                               std::this_thread::sleep_for(1000s);
                                                           });
                                                   }),
                              "abandoned");
                    });
                group.start_soon([&] {
                    check(!weft::move_on_after(5ms,
                                               [&] {
                                                   weft::to_thread::run_sync({.limiter = &none},
                                                                             [] {});
                                               }),
                          "no token");
                });
            });
        });
        CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
    }
    weft::test::wait_for_threads(before);
}

TEST_CASE("P6: what a function prints goes nowhere, and it reads nothing") {
    run_with_processes([] {
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

TEST_CASE("P7: a worker that has been idle for five minutes is ended by the next call") {
    weft::test::run_sim(0, [] {
        weft::detail::process_pool pool;
        auto fresh = std::make_unique<weft::detail::pool_worker>();
        int ends[2];
        check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "a connection");
        weft::unique_fd const theirs(ends[1]);
        fresh->connection = weft::detail::open_descriptor(weft::unique_fd(ends[0]));
        fresh->child = weft::detail::child_process::start(
            {.arguments = {"sleep", "1000"}, .candidates = {"/bin/sleep"}});
        pool.give(std::move(fresh));
        std::vector<std::unique_ptr<weft::detail::pool_worker>> retired;
        weft::sleep(299s); // of the virtual clock
        auto taken = pool.take(retired);
        check(taken != nullptr && retired.empty(), "not yet");
        pool.give(std::move(taken));
        weft::sleep(300s);
        check(pool.take(retired) == nullptr && retired.size() == 1, "now");
        retired.front()->child->end(0s);
        check(retired.front()->child->exit_code() == -SIGKILL, "ended, and reaped");
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

TEST_CASE("P9: no worker process outlives its run") {
    pid_t left = 0;
    weft::run([&] { left = worker(); });
    CHECK(::kill(left, 0) != 0);
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("P12: each worker has one call at a time, also when they are killed at random") {
    run_with_processes([] {
        std::atomic<int> answered = 0;
        std::atomic<int> broken = 0;
        std::atomic<pid_t> somebody = 0;
        weft::capacity_limiter limiter(4);
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 8; ++task)
                group.start_soon([&, task] {
                    for (int round = 0; round < 20; ++round)
                        try {
                            int const number = task * 1000 + round;
                            auto const [square, where] = to_process::run_sync(
                                {.limiter = &limiter},
                                [](int n) { return std::pair(n * n, int(::getpid())); }, number);
                            check(square == number * number, "our own answer");
                            somebody = where;
                            ++answered;
                        } catch (weft::broken_worker_process const&) {
                            ++broken;
                        }
                });
            group.start_soon([&] {
                while (answered + broken < 8 * 20) {
                    weft::sleep(2ms);
                    if (pid_t const victim = somebody.exchange(0)) ::kill(victim, SIGKILL);
                }
            });
        });
        check(answered + broken == 8 * 20 && answered > 0, "each was answered or broken");
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
