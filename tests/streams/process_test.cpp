#include <weft/streams/process.hpp>

#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/io/error.hpp>
#include <weft/io/resource.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_SUITE_BEGIN("streams.process");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;

// Also: no child is left, dead or alive.
void run_with_processes(std::function<void()> const& body, unsigned times = 1) {
    weft::test::run_test({.seeds = {}, .times = times}, body);
    ::siginfo_t info{};
    int const found = ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
    CHECK(found == -1);
    CHECK(errno == ECHILD);
}

// Where it is the point that a process ends politely, however busy the machine is.
constexpr auto long_grace = 20s;

bool exists(int pid) { return ::kill(pid, 0) == 0 || errno != ESRCH; }

// Grandchildren are reaped by somebody else, a moment after they end.
bool is_running(int pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string text;
    std::getline(stat, text);
    std::size_t const name = text.rfind(')');
    return name != std::string::npos && text[name + 2] != 'Z' && text[name + 2] != 'X';
}

int error_of(std::function<void()> const& call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return failure.code().value();
    }
    return 0;
}

std::string text_of_error(std::function<void()> const& call) {
    try {
        call();
    } catch (std::exception const& failure) {
        return failure.what();
    }
    return {};
}

std::string read_line(weft::byte_receive_stream& from) {
    std::string line;
    std::byte octet;
    while (from.receive_some({&octet, 1}) == 1 && octet != std::byte('\n'))
        line += char(octet);
    return line;
}

// Without a shell, which forks.
constexpr int processes_to_trace = 6;

weft::test::child_program const starts_processes("starts processes", [] {
    weft::run({.workers = 2}, [] {
        weft::run_process({"true"});
        weft::run_process({"cat"}, {.input = std::string(100'000, 'x')});
        weft::run_process({"true"}, {.cwd = "/", .env = {{{"A", "b"}}}, .start_new_session = true});
        weft::run_process({"sh", "-c", "exit 3"}, {.check = false});
        weft::open_process({"sleep", "1000"}); // dropped
        error_of([] { weft::open_process({"/no/such/program"}); });
    });
    std::puts("all started");
});

std::string signals_ignored_here() { // the line of /proc/self/status
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("SigIgn:")) return line;
    return "SigIgn:";
}

} // namespace

TEST_CASE("SP1: a string goes to the shell, a list does not") {
    run_with_processes([] {
        check(weft::run_process("echo a; echo b >&2").stdout_data == "a\n", "the shell ran it");
        auto const result = weft::run_process({"printf", "%s|", "$HOME", "a b", ""});
        check(result.stdout_data == "$HOME|a b||", "nobody interpreted the arguments");
        check(weft::run_process({"true"}).stdout_data == "", "one word is a list, too");
        check(result.args.words().size() == 5 && !result.args.is_for_shell(), "args");
    });
}

TEST_CASE("SP1: what cannot be executed is an error that names it, and leaves nothing behind") {
    run_with_processes([] {
        auto const missing = [] { weft::open_process({"no-such-program-here", "x"}); };
        check(error_of(missing) == ENOENT, "ENOENT");
        check(text_of_error(missing).find("no-such-program-here") != std::string::npos, "its name");
        check(error_of([] { weft::open_process({"/etc/passwd"}); }) == EACCES, "EACCES");
        check(error_of([] { weft::open_process({"/"}); }) == EACCES, "a directory");
        auto const nowhere = [] { weft::open_process({"true"}, {.cwd = "/no/such/place"}); };
        check(error_of(nowhere) == ENOENT, "no such directory");
        check(text_of_error(nowhere).find("/no/such/place") != std::string::npos, "its name, too");
        check(error_of([] { weft::open_process({"true"}, {.pass_fds = {4321}}); }) == EBADF,
              "no such descriptor");
        check(error_of([] { weft::open_process({"true"}, {.stdout_ = 4321}); }) == EBADF,
              "no such descriptor for stdout");
        check(error_of([] {
                  weft::open_process({"ls"}, {.env = {{{"PATH", "/no/such/place"}}}});
              }) == ENOENT,
              "the given environment's PATH counts");
    });
}

TEST_CASE("SP1: what makes no sense is refused before anything is started") {
    run_with_processes([] {
        using refused = std::invalid_argument;
        check_throws<refused>([] { weft::open_process(std::vector<std::string>()); }, "no words");
        check_throws<refused>([] { weft::open_process(""); }, "an empty command");
        check_throws<refused>([] { weft::open_process({"echo", std::string("a\0b", 3)}); }, "NUL");
        check_throws<refused>([] { weft::open_process({"true"}, {.input = "x"}); }, "input");
        check_throws<refused>([] { weft::open_process({"true"}, {.umask = 01000}); }, "umask");
        check_throws<refused>([] { weft::open_process({"true"}, {.pass_fds = {-1}}); }, "fd -1");
        check_throws<refused>(
            [] { weft::open_process({"true"}, {.stdin_ = weft::stdio::standard_output}); },
            "stdin");
        check_throws<refused>([] { weft::open_process({"true"}, {.user = "no such user"}); },
                              "no such user");
        check_throws<refused>([] { weft::open_process({"true"}, {.group = "no such group"}); },
                              "no such group");
        check_throws<refused>([] { weft::open_process({"true"}, {.user = -1}); }, "user -1");
        check_throws<refused>(
            [] {
                weft::open_process({"env"}, {.env = {{{"A=B", "c"}}}});
            },
            "env");
        check_throws<refused>(
            [] { weft::run_process({"cat"}, {.input = "x", .stdin_ = weft::stdio::inherit}); },
            "SP9: both");
    });
}

TEST_CASE("SP2: standard streams are pipes, nothing, descriptors, or one another") {
    run_with_processes([] {
        auto const both =
            weft::run_process("echo a; echo b >&2", {.stderr_ = weft::stdio::standard_output});
        check(both.stdout_data == "a\nb\n" && !both.stderr_data, "stderr goes where stdout goes");
        auto const none =
            weft::run_process("echo a; echo b >&2",
                              {.stdout_ = weft::stdio::devnull, .stderr_ = weft::stdio::devnull});
        check(!none.stdout_data && !none.stderr_data, "no pipes, no data");
        weft::process quiet = weft::open_process({"true"}, {.stdin_ = weft::stdio::devnull,
                                                            .stdout_ = weft::stdio::devnull,
                                                            .stderr_ = weft::stdio::devnull});
        check(!quiet.stdin_stream() && !quiet.stdout_stream() && !quiet.stderr_stream(), "none");
        quiet.close();
    });
}

TEST_CASE("SP2: numbers of the standard streams may be given in any order") {
    // In a child, whose 1 and 2 are known: they are exchanged for the grandchild.
    run_with_processes([] {
        auto pipe = weft::create_pipe();
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        weft::unique_fd const out(ends[0]);
        weft::unique_fd in(ends[1]);
        int const saved_out = ::fcntl(1, F_DUPFD_CLOEXEC, 3);
        ::dup2(in.get(), 1);
        auto const failure = text_of_error(
            [] { weft::run_process("echo to stderr >&2", {.stdout_ = 2, .stderr_ = 1}); });
        ::dup2(saved_out, 1);
        ::close(saved_out);
        in.reset();
        char text[64] = {};
        check(::read(out.get(), text, sizeof text) > 0 && std::string(text) == "to stderr\n",
              "2 went to what was 1: " + failure);
    });
}

TEST_CASE("SP3: directory, environment, session, umask, user and groups are the child's own") {
    run_with_processes([] {
        check(weft::run_process({"pwd"}, {.cwd = "/usr"}).stdout_data == "/usr\n", "directory");
        check(weft::run_process({"/usr/bin/env"}, {.env = {{{"A", "b"}}}}).stdout_data == "A=b\n",
              "the whole environment");
        check(weft::run_process("umask", {.umask = 027}).stdout_data == "0027\n", "umask");
        auto const session = weft::run_process("cut -d' ' -f6 < /proc/$$/stat; echo $$",
                                               {.start_new_session = true});
        auto const& data = *session.stdout_data;
        check(data.substr(0, data.find('\n')) ==
                  data.substr(data.find('\n') + 1, data.size() / 2 - 1),
              "it leads a session");
        if (::getuid() != 0) return;
        auto const who = weft::run_process(
            "id -u; id -g; id -G",
            {.user = "nobody", .group = 54'321, .extra_groups = {{12'345, "daemon"}}});
        check(who.stdout_data == "65534\n54321\n54321 1 12345\n",
              "user and groups: " + *who.stdout_data);
        auto const groups =
            weft::run_process("id -G", {.group = 7, .extra_groups = std::vector<weft::account>()});
        check(groups.stdout_data == "7\n", "an empty list: no groups");
    });
}

TEST_CASE("SP3: a child has its standard streams and what is passed, and no other descriptor") {
    run_with_processes([] {
        weft::unique_fd const kept(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        weft::unique_fd const leaks(::open("/dev/null", O_RDONLY)); // not close-on-exec
        std::string const look =
            "for fd in $(seq 0 99); do test -e /proc/$$/fd/$fd && echo $fd; done";
        auto const seen = weft::run_process(look + "; true", {.pass_fds = {kept.get()}});
        check(seen.stdout_data == "0\n1\n2\n" + std::to_string(kept.get()) + "\n",
              *seen.stdout_data);
        check((::fcntl(kept.get(), F_GETFD) & FD_CLOEXEC) != 0, "here it is as it was");
    });
}

TEST_CASE("SP3: a child starts with default signals, but for those ignored from outside, and none "
          "blocked") {
    std::string const before_us = signals_ignored_here(); // such as SIGHUP under nohup
    struct ignore_sigpipe {
        ignore_sigpipe() { ::signal(SIGPIPE, SIG_IGN); }
        ~ignore_sigpipe() { ::signal(SIGPIPE, SIG_DFL); }
    } const guard;
    ::sigset_t some;
    ::sigset_t before;
    ::sigemptyset(&some);
    ::sigaddset(&some, SIGUSR1);
    ::pthread_sigmask(SIG_BLOCK, &some, &before);
    run_with_processes([&] {
        auto const lines = weft::run_process("grep -E 'Sig(Blk|Ign)' /proc/self/status");
        check(lines.stdout_data->find("SigBlk:\t0000000000000000") != std::string::npos, "mask");
        check(lines.stdout_data->find(before_us) != std::string::npos, *lines.stdout_data);
    });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("SP4: several tasks wait, repeatedly, before and after the end; SP16") {
    run_with_processes(
        [] {
            weft::process child = weft::open_process({"cat"});
            std::atomic<int> heard = 0;
            weft::with_task_group([&](weft::task_group& group) {
                for (int task = 0; task < 5; ++task)
                    group.start_soon([&] {
                        check(child.wait() == 0, "its exit status");
                        check(child.returncode() == 0, "it is there once wait() returns");
                        ++heard;
                    });
                weft::wait_all_tasks_blocked();
                check(!child.returncode() && heard == 0, "it runs");
                child.stdin_stream()->close();
            });
            check(heard == 5 && child.wait() == 0, "and again");
            child.close();
            child.close();
        },
        20);
}

TEST_CASE("SP4: a cancelled waiter leaves the others waiting") {
    run_with_processes(
        [] {
            weft::process child = weft::open_process({"cat"});
            weft::with_task_group([&](weft::task_group& group) {
                weft::cancel_scope first;
                weft::event gave_up;
                group.start_soon([&] {
                    check(!first.run([&] { child.wait(); }), "cut short");
                    gave_up.set();
                });
                weft::wait_all_tasks_blocked();
                group.start_soon(
                    [&] { check(child.wait() == 0, "the other one hears of the end"); });
                weft::wait_all_tasks_blocked();
                first.cancel();
                gave_up.wait();
                child.stdin_stream()->close();
            });
            child.close();
        },
        20);
}

TEST_CASE("SP4: minus the signal that killed it; and it has ended though its pipes are held open") {
    run_with_processes([] {
        weft::process child = weft::open_process("sleep 1000 & echo $!; exit 7");
        check(child.wait() == 7, "the shell has ended");
        int const grandchild = std::stoi(read_line(*child.stdout_stream()));
        check(is_running(grandchild), "what it started has not");
        ::kill(grandchild, SIGKILL);
        child.close();
        auto const killed = weft::run_process("kill -9 $$", {.check = false});
        check(killed.returncode == -SIGKILL, "by a signal");
    });
}

TEST_CASE("SP5: the returncode is known without wait()") {
    run_with_processes([] {
        weft::process child = weft::open_process({"cat"});
        int const pid = child.pid();
        check(!child.returncode(), "it runs");
        child.stdin_stream()->close();
        while (!child.returncode())
            std::this_thread::yield();
        check(child.returncode() == 0 && child.pid() == pid && !exists(pid), "ended, and reaped");
    });
}

TEST_CASE("SP6: signals reach it, and nobody else once it has ended") {
    run_with_processes([] {
        weft::process child = weft::open_process({"sleep", "1000"});
        check_throws<std::invalid_argument>([&] { child.send_signal(-1); }, "no signal");
        check_throws<std::invalid_argument>([&] { child.send_signal(1000); }, "no signal");
        std::thread([&] { child.send_signal(SIGUSR1); }).join(); // any thread
        check(child.wait() == -SIGUSR1, "by the signal");
        child.kill();
        child.terminate();
        child.send_signal(SIGUSR1);
        child.close();
    });
}

TEST_CASE("SP7: close() closes the streams and waits; it asks nobody to end") {
    run_with_processes([] {
        weft::process child = weft::open_process("cat >/dev/null; exit 3");
        child.close();
        check(child.returncode() == 3, "it ended by itself");
        check_throws<weft::closed_resource_error>([&] { child.stdin_stream()->send("x"); }, "SP12");
        // It writes for ever: closing our end is what frees it.
        weft::process flood = weft::open_process({"yes"});
        flood.close();
        check(flood.returncode() == -SIGPIPE, "its reader is gone");
    });
}

TEST_CASE("SP7, SP8: a cancelled close() ends the process, and reaps it, before it goes on") {
    run_with_processes(
        [] {
            weft::process child =
                weft::open_process({"sleep", "1000"}, {.grace_period = long_grace});
            int const pid = child.pid();
            weft::cancel_scope scope;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { check(!scope.run([&] { child.close(); }), "cut short"); });
                weft::wait_all_tasks_blocked();
                check(!child.returncode(), "it is waited for");
                scope.cancel();
            });
            check(!exists(pid) && child.returncode() == -SIGTERM, "politely");
            weft::process other =
                weft::open_process({"sleep", "1000"}, {.grace_period = long_grace});
            weft::close_forcefully(other);
            check(other.returncode() == -SIGTERM, "forcefully, the same");
        },
        5);
}

TEST_CASE("SP8: who does not listen to SIGTERM is killed when the grace is over") {
    run_with_processes([] {
        weft::process deaf = weft::open_process(
            "trap '' TERM; echo ready; while :; do sleep 1000; done", {.grace_period = 50ms});
        check(read_line(*deaf.stdout_stream()) == "ready", "it began");
        weft::close_forcefully(deaf);
        check(deaf.returncode() == -SIGKILL, "firmly");

        weft::process tidy = weft::open_process(
            "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01 & wait; done",
            {.grace_period = long_grace});
        check(read_line(*tidy.stdout_stream()) == "ready", "it began");
        weft::close_forcefully(tidy);
        check(tidy.returncode() == 5, "it had the time to say good-bye");

        weft::process stopped = weft::open_process({"sleep", "1000"}, {.grace_period = long_grace});
        stopped.send_signal(SIGSTOP);
        weft::close_forcefully(stopped);
        check(stopped.returncode() == -SIGTERM, "one that is stopped hears it, too");
    });
}

TEST_CASE("SP8: the whole group ends, also what ignores SIGTERM and closed its outputs") {
    run_with_processes([] {
        weft::process child = weft::open_process(
            "(trap '' TERM; exec >/dev/null 2>&1; while :; do sleep 1000; done) & echo $!; wait",
            {.grace_period = 50ms});
        int const grandchild = std::stoi(read_line(*child.stdout_stream()));
        weft::close_forcefully(child);
        check(child.returncode() == -SIGTERM, "the shell was polite");
        for (int look = 0; look < 1000 && is_running(grandchild); ++look)
            weft::sleep(1ms);
        check(!is_running(grandchild), "the other one was not asked twice");
    });
}

TEST_CASE("SP8: run_process() that is cancelled leaves no process, however busy that is") {
    run_with_processes([] {
        for (auto const* const busy : {"sleep 1000", "yes", "yes >&2", "yes & yes >&2",
                                       "exec >&- 2>&- <&-; sleep 1000", "kill -STOP $$"}) {
            bool const finished = weft::move_on_after(
                30ms, [&] { weft::run_process(busy, {.grace_period = 100ms}); });
            check(!finished, "cut short");
        }
    });
}

TEST_CASE("SP8: whenever run_process() is cancelled, nothing is left") {
    for (int delay = 0; delay < 40; ++delay)
        weft::test::run_test({.workers = {2}, .seeds = {}}, [&] {
            weft::move_on_after(std::chrono::microseconds(delay * 100), [] {
                weft::run_process("cat", {.input = std::string(1 << 20, 'x')});
            });
        });
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("SP8: at every point where run_process() can be cancelled") {
    unsigned const points =
        weft::test::cancel_at_every_suspension_point([](weft::test::attempt& at) {
            std::optional<weft::bytes> got;
            bool const through =
                at.run([&] { got = weft::run_process("cat", {.input = "x"}).stdout_data; });
            check(!through || got == "x", "all of it");
            check(::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD, "no process is left");
        });
    CHECK(points >= 3);
}

TEST_CASE("SP7: at every point where close() can be cancelled") {
    weft::test::cancel_at_every_suspension_point([](weft::test::attempt& at) {
        weft::process child = weft::open_process({"cat"});
        at.run([&] { child.close(); });
        check(child.returncode().has_value(), "it has ended");
    });
}

TEST_CASE("SP9: input is fed while both outputs are drained, however much there is") {
    run_with_processes([] {
        std::string const much(3'000'000, 'x');
        auto const result = weft::run_process("tee /dev/stderr", {.input = much});
        check(result.stdout_data == much && result.stderr_data == much, "all of it, three times");
        check(weft::run_process({"cat"}, {.input = ""}).stdout_data == "", "nothing is input, too");
        check(weft::run_process({"cat"}).stdout_data == "", "no input: the end");
        check(weft::run_process({"cat"}, {.stdin_ = weft::stdio::pipe}).stdout_data == "",
              "a pipe that nobody feeds");
    });
}

TEST_CASE("SP10: check makes a failure an exception that knows what happened") {
    run_with_processes([] {
        try {
            weft::run_process("echo out; echo err >&2; exit 3");
            check(false, "it failed");
        } catch (weft::called_process_error const& failure) {
            check(failure.returncode() == 3 && failure.stdout_data() == "out\n" &&
                      failure.stderr_data() == "err\n" && failure.args().is_for_shell(),
                  "what happened");
            check(std::string(failure.what()).find("exit 3") != std::string::npos &&
                      std::string(failure.what()).find("exit status 3") != std::string::npos,
                  failure.what());
        }
        check(text_of_error([] {
                  weft::run_process({"sh", "-c", "kill -SEGV $$"});
              }).find("SIGSEGV") != std::string::npos,
              "the signal's name");
        check(weft::run_process("exit 3", {.check = false}).returncode == 3, "unchecked");
    });
}

TEST_CASE("SP11: a process may leave its input unread") {
    run_with_processes([] {
        std::string const much(1'000'000, 'x');
        check(weft::run_process({"true"}, {.input = much}).returncode == 0, "it did not care");
        check(weft::run_process("head -c 3", {.input = much}).stdout_data == "xxx", "a little");
        check(weft::run_process("exec <&-; echo closed", {.input = much}).stdout_data == "closed\n",
              "it closed it and lived on");
    });
}

TEST_CASE("SP12: pipes say who closed them, and SIGPIPE is never raised") {
    run_with_processes([] {
        weft::process child = weft::open_process("exec <&-; echo closed; sleep 1000");
        check(child.stdout_stream()->receive() == "closed\n", "it closed its input");
        check_throws<weft::broken_resource_error>([&] { child.stdin_stream()->send("x"); },
                                                  "broken");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::closed_resource_error>([&] { child.stdout_stream()->receive(); },
                                                          "closed under the reader");
            });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { child.stdout_stream()->receive(); },
                                                    "X6: one reader");
            child.stdout_stream()->close();
        });
        weft::close_forcefully(child);
        weft::process end = weft::open_process({"true"});
        check_throws<weft::end_of_stream>([&] { end.stdout_stream()->receive(); }, "the end");
        check_throws<weft::end_of_stream>([&] { end.stdout_stream()->receive(); }, "again");
        end.close();
        check_throws<weft::closed_resource_error>([&] { end.stdout_stream()->receive(); }, "X1");
    });
}

TEST_CASE("SP14: a status that somebody else took is 255, and nobody waits for ever") {
    weft::test::run_test({.workers = {2}, .seeds = {}}, [] {
        weft::process child = weft::open_process({"cat"});
        std::thread thief([pid = child.pid()] { ::waitpid(pid, nullptr, 0); });
        child.stdin_stream()->close();
        thief.join();
        check(child.wait() == 255 && child.returncode() == 255, "defined");
        child.kill();
        child.close();
    });
}

TEST_CASE("SP15: this process is not copied") {
    static std::atomic<int> copies = 0;
    static int const registered = ::pthread_atfork([] { ++copies; }, nullptr, nullptr);
    REQUIRE(registered == 0);
    copies = 0;
    run_with_processes([] {
        weft::run_process("true");
        check_throws<std::system_error>([] { weft::run_process({"/no/such/program"}); }, "missing");
    });
    CHECK(copies == 0);
}

TEST_CASE("SP15: strace sees no copy of this process, and no fork") {
    std::string const log =
        std::filesystem::temp_directory_path() / ("weft-strace-" + std::to_string(::getpid()));
    std::string const command = "strace -f -o " + log + " -e trace=fork,vfork,clone,clone3 " +
                                std::filesystem::read_symlink("/proc/self/exe").string() +
                                " --child 'starts processes' 2>&1";
    std::string said;
    weft::run([&] { said = weft::run_process(command, {.check = false}).stdout_data.value(); });
    if (said.find("all started") == std::string::npos) { // no strace, or nobody may trace here
        MESSAGE("not tried: ", said);
        return;
    }
    int starts = 0;
    std::string copies;
    std::ifstream lines(log);
    for (std::string line; std::getline(lines, line);) {
        auto const has = [&line](char const* text) { return line.find(text) != std::string::npos; };
        if (has("resumed>") || has("CLONE_THREAD") || (!has("fork(") && !has("clone"))) continue;
        if (has("CLONE_VM") && has("CLONE_VFORK"))
            ++starts;
        else if (!has("CLONE_VM")) // LeakSanitizer looks at the memory from a process that shares it
            copies += line + "\n";
    }
    std::filesystem::remove(log);
    CHECK(copies == "");
    CHECK(starts == processes_to_trace);
}

TEST_CASE("SP14: children of others are left alone") {
    ::pid_t const other = ::fork();
    if (other == 0) ::_exit(42);
    weft::test::run_test({.seeds = {}}, [] { weft::run_process({"true"}); });
    int status = 0;
    REQUIRE(::waitpid(other, &status, 0) == other);
    CHECK(WEXITSTATUS(status) == 42);
}

TEST_CASE("SP17: a process that is dropped is killed, with its group, and reaped by the run") {
    run_with_processes([] {
        for (int round = 0; round < 10; ++round) {
            weft::open_process({"sleep", "1000"});
            weft::open_process("yes | cat");
        }
    });
    std::unique_ptr<weft::process> outlives;
    weft::run([&] {
        outlives = std::make_unique<weft::process>(weft::open_process({"sleep", "1000"}));
    });
    int const pid = outlives->pid();
    CHECK(!outlives->returncode());
    outlives.reset();
    CHECK(!exists(pid));
}

TEST_CASE("SP8: an exception in the middle of a conversation leaves no process") {
    run_with_processes([] {
        check_throws<std::runtime_error>(
            [] {
                weft::process child = weft::open_process({"cat"});
                child.stdin_stream()->send("x");
                throw std::runtime_error("torn");
            },
            "it passes");
    });
}

TEST_CASE("many processes at once") {
    run_with_processes([] {
        std::atomic<int> sum = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int number = 0; number < 50; ++number)
                group.start_soon([&, number] {
                    sum +=
                        std::stoi(*weft::run_process({"echo", std::to_string(number)}).stdout_data);
                });
        });
        check(sum == 49 * 50 / 2, "each its own output");
    });
}

TEST_CASE("a process outside of a task is refused") {
    CHECK_THROWS_AS(weft::open_process({"true"}), weft::no_event_loop_error);
}

TEST_CASE("a command reads as a shell would read it") {
    CHECK(weft::command({"a", "b c", "it's", ""}).to_string() == "a 'b c' 'it'\\''s' ''");
    CHECK(weft::command("a b").to_string() == "'a b'");
}

TEST_SUITE_END();
