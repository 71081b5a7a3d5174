#include "chaos.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/error.hpp>
#include <weft/io/to_process.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace stress {

namespace {

using std::chrono::microseconds;
namespace to_process = weft::to_process;

struct answer {
    std::uint64_t product;
    pid_t where;
};

answer multiply(std::uint64_t left, std::uint64_t right) { return {left * right, ::getpid()}; }

std::string repeat(std::string const& text, std::uint64_t times) {
    std::string result;
    while (times-- != 0)
        result += text;
    return result;
}

[[noreturn]] void fail(int code) { throw std::out_of_range(std::to_string(code)); }

void crash(int number) {
    ::raise(number);
    std::_Exit(number);
}

void fail_there(to_process::options const& how, int code) {
    try {
        to_process::run_sync(how, fail, code);
    } catch (std::out_of_range const& failure) {
        require(failure.what() == std::to_string(code), "an exception arrives as it was thrown");
        return;
    }
    require(false, "an exception arrives");
}

void crash_there(to_process::options const& how, random_source& random) {
    constexpr int signals[] = {SIGSEGV, SIGKILL, SIGABRT, SIGCHLD};
    bool broken = false;
    try {
        to_process::run_sync(how, crash, signals[random.below(std::size(signals))]);
    } catch (weft::broken_worker_process const&) {
        broken = true;
    }
    require(broken, "a process that ends is no answer");
}

void call_there(to_process::options const& how, random_source& random,
                std::atomic<pid_t>& somebody) {
    std::uint64_t const left = random(), right = random();
    switch (random.below(6)) {
    case 0: return fail_there(how, int(random.below(1000)));
    case 1: return crash_there(how, random);
    case 2: {
        std::string const text(random.below(2000), 'x');
        std::uint64_t const times = random.below(300);
        require(to_process::run_sync(how, repeat, text, times).size() == text.size() * times,
                "large results arrive");
        break;
    }
    default:
        answer const got = to_process::run_sync(how, multiply, left, right);
        require(got.product == left * right, "each call gets its own answer");
        require(got.where != ::getpid(), "elsewhere");
        somebody = got.where;
    }
}

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

// One that was reaped meanwhile is no child any more, and the number may be somebody else's.
void kill_child(pid_t victim) {
    weft::unique_fd const process(int(::syscall(SYS_pidfd_open, victim, 0)));
    ::siginfo_t info{};
    if (process && ::waitid(::idtype_t(P_PIDFD), ::id_t(process.get()), &info, WEXITED | WNOHANG | WNOWAIT) == 0)
        ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
}

} // namespace

void worker_process_storm(trial& now) {
    std::uint64_t const tasks = now.random.between(1, 8);
    std::atomic<pid_t> somebody = 0;
    now.run([&] {
        weft::capacity_limiter limiter(double(now.random.between(1, 4)));
        weft::with_task_group([&](weft::task_group& killer) {
            killer.start_soon([&, random = now.random.split()]() mutable {
                for (;;) { // at random moments: busy, idle or not there yet
                    weft::sleep(microseconds(random.below(5000)));
                    pid_t const victim = random.one_in(10) ? find_starting_worker() : somebody.exchange(0);
                    if (victim != 0) kill_child(victim);
                }
            });
            weft::with_task_group([&](weft::task_group& group) {
                for (std::uint64_t task = 0; task < tasks; ++task)
                    group.start_soon([&, random = now.random.split()]() mutable {
                        for (int round = 0; round < 15; ++round) {
                            to_process::options const how{.cancellable = random.one_in(2),
                                                          .limiter = &limiter};
                            try {
                                weft::move_on_after(microseconds(random.below(30'000)),
                                                    [&] { call_there(how, random, somebody); });
                            } catch (weft::broken_worker_process const&) { // was killed
                            }
                            progress();
                        }
                    });
            });
            require(limiter.borrowed_tokens() == 0, "no token is lost");
            killer.cancel();
        });
    });
    ::siginfo_t info{};
    require(::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == ECHILD,
            "no worker process is left after run(), dead or alive");
}

} // namespace stress
