#include <weft/io/to_process.hpp>

#include "io/src/process_pool.hpp"
#include "io/src/worker_protocol.hpp"
#include "worker_processes.hpp"

#include <weft/io/error.hpp>
#include <weft/io/readiness.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/from_thread.hpp>
#include <weft/sync/portal.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// The ends of worker processes: killed, crashed, silent, idle for long, abandoned.

TEST_SUITE_BEGIN("io.worker_ends");

namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using weft::detail::frame_header;
using weft::detail::frame_kind;
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

// A worker process that finds this in its environment never greets.
constexpr char const* silence = "WEFT_TEST_SILENT_WORKER";

[[maybe_unused]] bool const silent = [] {
    if (::program_invocation_name != weft::detail::worker_name + ""s) return false;
    while (std::getenv(silence) != nullptr)
        ::pause();
    return true;
}();

// One that finds this in its environment ends before it greets; told so, it leaves a process behind that
// has its connection.
constexpr char const* early_end = "WEFT_TEST_EARLY_END";

[[maybe_unused]] bool const ended_early = [] {
    if (::program_invocation_name != weft::detail::worker_name + ""s) return false;
    char const* const how = std::getenv(early_end);
    if (how == nullptr) return false;
    if (how == "leaving another behind"s && ::fork() == 0)
        for (;;)
            ::pause();
    std::_Exit(3);
}();

// By whichever number its connection has.
void say_to_all(void const* data, std::size_t size) {
    for (int fd = 3; fd < 100; ++fd)
        (void)!::write(fd, data, size);
}

// The exit status of a worker that is told this in place of a call.
int status_after(frame_header const& told) {
    int ends[2];
    check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "a connection");
    weft::unique_fd ours(ends[0]);
    weft::unique_fd theirs(ends[1]);
    auto const child = weft::detail::child_process::start(
        {.arguments = {weft::detail::worker_name, std::to_string(theirs.get())},
         .candidates = {"/proc/self/exe"},
         .kept = {theirs.get()}});
    theirs.reset();
    frame_header greeting;
    check(::recv(ours.get(), &greeting, sizeof greeting, MSG_WAITALL) == sizeof greeting &&
              greeting.kind == frame_kind::greeting,
          "it has begun");
    check(::send(ours.get(), &told, sizeof told, MSG_NOSIGNAL) == sizeof told, "told");
    ::shutdown(ours.get(), SHUT_WR);
    return child->wait_blocking();
}

// ThreadSanitizer's own begins with the first one of the program, and stays. Returns when that one is no longer
// among those that are counted.
void begin_sanitizers_thread() {
    pid_t first = 0;
    std::thread([&] { first = ::gettid(); }).join();
    while (std::filesystem::exists("/proc/self/task/" + std::to_string(first)))
        std::this_thread::yield();
}

struct silent_workers {
    silent_workers() { ::setenv(silence, "1", 1); }
    ~silent_workers() { ::unsetenv(silence); }
};

} // namespace

TEST_CASE("P3: a cancellable call kills its process, which is reaped before the caller leaves") {
    run_with_processes([] {
        pid_t const before = worker();
        shared_flag const began;
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                bool const finished = scope.run([&] {
                    to_process::run_sync(
                        {.cancellable = true},
                        [](std::string const& started) {
                            ::signal(SIGTERM, SIG_IGN);
                            shared_flag::set(started);
                            std::this_thread::sleep_for(1000s);
                        },
                        began.path());
                });
                check(!finished && is_gone(before), "gone");
            });
            while (!began.is_set()) // before that the call may have no process yet
                weft::sleep(1ms);
            scope.cancel();
        });
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
                  say_to_all("nonsense, and enough of it", 26);
                  std::this_thread::sleep_for(1000s);
              }).find("protocol") != std::string::npos,
              "one that talks nonsense");
        check(failure_of([] {
                  frame_header const too_large{.kind = frame_kind::value, .size = weft::detail::largest_frame + 1};
                  say_to_all(&too_large, sizeof too_large);
                  std::this_thread::sleep_for(1000s);
              }).find("protocol") != std::string::npos,
              "one that announces more than a frame");
    });
}

TEST_CASE("P4: a worker that hears what is no call, or is larger than a frame can be, ends") {
    constexpr int breach = 125;
    run_with_processes([] {
        check(status_after({.kind = frame_kind::call, .size = 8}) == 0, "the program is gone");
        check(status_after({.kind = frame_kind::call, .size = weft::detail::largest_frame + 1}) == breach,
              "more than a frame");
        check(status_after({.kind = frame_kind::value}) == breach, "no call");
        check(status_after({.magic = 1, .kind = frame_kind::call}) == breach, "nonsense");
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

TEST_CASE("P4, P5: a worker that ends before it greets is an error that says how, at once") {
    run_with_processes([] {
        auto& pool = weft::detail::current_services("a test").get<weft::detail::process_pool>(
            [] { return std::make_unique<weft::detail::process_pool>(); });
        pool.time_to_greet = 1000s;
        for (char const* const how : {"alone", "leaving another behind"}) {
            ::setenv(early_end, how, 1);
            std::string const text = text_of_failure([] { to_process::run_sync(square, 2); });
            ::unsetenv(early_end);
            check(text.ends_with("ended with exit status 3"), text);
        }
        check(to_process::run_sync(square, 3) == 9, "the next one");
    });
}

TEST_CASE("no thread and no zombie is left when calls were killed, abandoned, refused and failed") {
    begin_sanitizers_thread();
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
                group.start_soon([] {
                    check_throws<std::length_error>([] { to_process::run_sync([] { return immense(); }); },
                                                    "the result is too large");
                    check_throws<int>([] { weft::to_thread::run_sync([] { throw 7; }); }, "no std::exception");
                });
                group.start_soon([] {
                    auto const portal = weft::from_thread::start_blocking_portal({.workers = 1});
                    portal->call([&portal] {
                        check_throws<std::logic_error>([&portal] { portal->call([] {}); }, "by its own fiber");
                    });
                    check_throws<int>([&portal] { portal->call([] { throw 7; }); }, "no std::exception");
                });
            });
        });
        CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
    }
    weft::test::wait_for_threads(before);
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

TEST_CASE("P9: no worker process outlives its run") {
    pid_t left = 0;
    weft::run([&] { left = worker(); });
    CHECK(is_gone(left));
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

namespace {

// A worker process that does not serve yet, as which it has its name; 0: there is none.
pid_t find_starting_worker() {
    for (auto const& entry : std::filesystem::directory_iterator("/proc")) {
        int const pid = std::atoi(entry.path().filename().c_str());
        std::string line; // "pid (name) state parent ..."
        if (pid == 0 || !std::getline(std::ifstream(entry.path() / "stat"), line)) continue;
        auto const name_end = line.rfind(')');
        if (name_end != line.npos && std::atoi(line.c_str() + name_end + 4) == ::getpid() &&
            line.find("(weft-worker)") == line.npos)
            return pid;
    }
    return 0;
}

// Returns when it is dead: a worker that dies only after a call has chosen it breaks that call. False: it is not our
// child (any more), and the number may be somebody else's.
bool kill_child(pid_t victim) {
    weft::unique_fd const process(int(::syscall(SYS_pidfd_open, victim, 0)));
    ::siginfo_t info{};
    if (!process || ::waitid(::idtype_t(P_PIDFD), ::id_t(process.get()), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0) != 0)
        return false;
    weft::wait_readable(process.get());
    return true;
}

} // namespace

TEST_CASE("P5, P12: each worker has one call at a time, also when they are killed at random, begun or not") {
    run_with_processes([] {
        constexpr int enough = 8 * 20;
        std::atomic<int> answered = 0, broken = 0, killed_at_start = 0;
        std::atomic<pid_t> somebody = 0;
        auto const is_over = [&] {
            return answered + broken >= enough && answered != 0 && broken != 0 && killed_at_start != 0;
        };
        weft::capacity_limiter limiter(4);
        weft::with_task_group([&](weft::task_group& group) {
            for (int task = 0; task < 8; ++task)
                group.start_soon([&, task] {
                    for (int round = 0; !is_over(); ++round)
                        try {
                            int const number = task * 1000 + round % 1000;
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
                for (int answered_before = 0; !is_over();) {
                    weft::sleep(2ms);
                    if (pid_t const victim = somebody.exchange(0)) kill_child(victim);
                    weft::sleep(2ms);
                    if (answered == answered_before) continue; // some have to begin, however long they take
                    if (pid_t const victim = find_starting_worker()) {
                        killed_at_start += kill_child(victim);
                        answered_before = answered;
                    }
                }
            });
        });
        check(to_process::run_sync(square, 3) == 9, "the next one");
    });
}

TEST_SUITE_END();
