#include <weft/streams/process.hpp>

#include "io/scratch.hpp"
#include "processes.hpp"
#include "support/child_process.hpp"
#include "support/traced_child.hpp"

#include <weft/io/file.hpp>
#include <weft/io/path.hpp>
#include <weft/io/resolver.hpp>
#include <weft/io/signals.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/streams/tcp.hpp>
#include <weft/streams/udp.hpp>
#include <weft/streams/unix_socket.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

TEST_SUITE_BEGIN("streams.process_start");

namespace {

using namespace weft::test;

// Without a shell, which forks.
constexpr int processes_to_trace = 6;

child_program const starts_processes("starts processes", [] {
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

// Of each kind; what only a child of its own would show is not among them.
constexpr char begin_here[] = "/from here on"; // what a test's own globals open is its concern

child_program const opens_everything("opens everything", [] {
    ::access(begin_here, F_OK);
    weft::run({.workers = 2}, [] {
        weft::temporary_directory place;
        weft::path const name = place.name() / "file";
        weft::file file = weft::open_file(name, "w+");
        file.write("x");
        weft::named_temporary_file const named;
        weft::file const nameless = weft::temporary_file();
        auto const made = weft::mkstemp({.directory = place.name()});
        for (weft::path const& each : place.name().rglob("*"))
            each.exists();
        auto pipe = weft::create_pipe();
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        auto const port = listener.extra(weft::socket_attribute::local_port);
        auto client = weft::connect_tcp("127.0.0.1", port);
        auto unix_listener = weft::create_unix_listener(place.name() / "socket");
        auto unix_client = weft::connect_unix(place.name() / "socket");
        auto const accepted = unix_listener.accept();
        auto const datagrams = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto signals = weft::open_signal_receiver({SIGUSR1});
        weft::getaddrinfo("localhost", "80");
        weft::to_thread::run_sync([] {});
        weft::sleep(std::chrono::milliseconds(1));
    });
    std::puts("all opened");
});

// No name that is not there, since glibc then has all its databases, some of which need no descriptor to say
// "not found".
child_program const looks_up_without_descriptors("looks a user up without descriptors", [] {
    weft::run({.workers = 1}, [] {
        auto const start = [](char const* when, weft::process_options const& options) {
            try {
                weft::open_process({"/bin/true"}, options);
            } catch (std::system_error const& failure) {
                std::printf("%s: %s\n", when, failure.what());
            } catch (std::invalid_argument const& refused) {
                std::printf("%s: refused, %s\n", when, refused.what());
            }
        };
        constexpr auto none = weft::stdio::inherit; // no pipes
        start("before", {.stdin_ = none, .stdout_ = none, .stderr_ = none, .cwd = "/none", .user = "daemon"});
        ::rlimit few{};
        ::getrlimit(RLIMIT_NOFILE, &few);
        few.rlim_cur = 0;
        ::setrlimit(RLIMIT_NOFILE, &few);
        start("user", {.stdin_ = none, .stdout_ = none, .stderr_ = none, .user = "daemon"});
        start("group", {.stdin_ = none, .stdout_ = none, .stderr_ = none, .group = "daemon"});
    });
});

child_program const passes_nothing_on("passes nothing on", [] {
    weft::unique_fd const leaks(::open("/dev/null", O_RDONLY)); // not close-on-exec
    weft::unique_fd const kept(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    weft::run({.workers = 1}, [&] {
        auto const has = [](weft::unique_fd const& fd, std::vector<int> const& passed) {
            std::string const name = "/proc/self/fd/" + std::to_string(fd.get());
            return weft::run_process({"test", "-e", name}, {.check = false, .pass_fds = passed}).returncode == 0;
        };
        std::printf("leaked: %d, passed: %d\n", has(leaks, {}), has(kept, {kept.get()}));
    });
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

TEST_CASE(
    "SP1: newlines and octets that are no UTF-8, in names, arguments, directories, variables") {
    std::string const odd = "a\nb\xff ' \"";
    run_with_processes([&] {
        scratch const place;
        (place / odd).mkdir();
        std::filesystem::path const program = place.where() / odd / odd;
        std::filesystem::copy_file("/bin/cat", program);
        auto const said = weft::run_process({program.string(), "-"},
                                            {.input = odd, .cwd = program.parent_path()});
        check(said.stdout_data == odd, "a program of that name");
        auto const where = weft::run_process(
            "pwd; printf %s \"$odd\"", {.cwd = program.parent_path(), .env = {{{"odd", odd}}}});
        check(where.stdout_data == program.parent_path().string() + "\n" + odd,
              "directory and variable");
        check(weft::run_process({"printf", "%s", odd}).stdout_data == odd, "an argument");
        std::filesystem::path const none = program.string() + "none";
        auto const missing = [&none] { weft::open_process({none.string()}); };
        check(error_of(missing) == ENOENT, "ENOENT");
        check(text_of_error(missing).find(none.string()) != std::string::npos, "its name as it is");
    });
}

TEST_CASE("SP1: dangling and looping links, what has no format, and names that are too long") {
    run_with_processes([] {
        scratch const place;
        (place / "loop").symlink_to("loop");
        (place / "dangling").symlink_to("nowhere");
        (place / "text").write_bytes("neither a program nor a script");
        (place / "text").chmod(0755);
        (place / "script").write_bytes("#!/no/such/interpreter\n");
        (place / "script").chmod(0755);
        auto const starting = [&](std::string const& name) {
            return error_of([&] { weft::open_process({(place / name).as_posix()}); });
        };
        check(starting("loop") == ELOOP, "ELOOP");
        check(starting("dangling") == ENOENT, "ENOENT");
        check(starting("text") == ENOEXEC, "ENOEXEC");
        check(starting("script") == ENOENT, "its interpreter");
        check(starting(std::string(5000, 'x')) == ENAMETOOLONG, "ENAMETOOLONG");
        check(starting("text/below") == ENOTDIR, "ENOTDIR");
        auto const in = [&](char const* name) {
            return error_of(
                [&] { weft::open_process({"true"}, {.cwd = (place / name).as_posix()}); });
        };
        check(in("loop") == ELOOP && in("dangling") == ENOENT && in("text") == ENOTDIR, "cwd");
        auto const too_much = [] { weft::open_process({"true", std::string(10'000'000, 'x')}); };
        check(error_of(too_much) == E2BIG, "E2BIG");
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

TEST_CASE("SP3: that a user cannot be looked up is told with its errno, and not that there is none") {
#if defined(__SANITIZE_ADDRESS__)
    MESSAGE("not with UBSan: it looks at objects through a pipe, for which there is no descriptor");
#else
    auto const end = run_child("looks a user up without descriptors");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("before: cannot change to the directory '/none'"));
    CHECK(end.says("user: cannot look up user 'daemon': Too many open files"));
    CHECK(end.says("group: cannot look up group 'daemon': Too many open files"));
#endif
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

TEST_CASE("SP3: so it is where close_range() is missing, and is not paid for by the limit of descriptors") {
    auto const traced = trace_child("passes nothing on", "-e trace=close_range,fcntl "
                                                         "-e inject=close_range:error=ENOSYS");
    if (!traced.was_traced) {
        MESSAGE("not tried: no strace here");
        return;
    }
    INFO(traced.output);
    CHECK(has(traced.output, "leaked: 0, passed: 1"));
    auto const count = [&traced](char const* what) {
        return std::ranges::count_if(traced.lines, [what](auto const& line) { return has(line, what); });
    };
    CHECK(count("ENOSYS") == 2);
    CHECK(count("F_SETFD") < 200); // a limit is hardly below 1024
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

TEST_CASE("SP3: a child's timers are as inexact as those of this process, not as exact as a worker's") {
    std::string own;
    std::getline(std::ifstream("/proc/self/timerslack_ns"), own);
    run_with_processes([&] {
        auto const child = weft::run_process({"cat", "/proc/self/timerslack_ns"});
        check(child.stdout_data == own + "\n", "the main thread's");
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
    auto const traced = trace_child("starts processes", "-e trace=fork,vfork,clone,clone3");
    if (!traced.was_traced) {
        MESSAGE("not tried: no strace here");
        return;
    }
    INFO(traced.output);
    CHECK(has(traced.output, "all started"));
    int starts = 0;
    std::string copies;
    for (std::string const& line : traced.lines) {
        bool const is_start = has(line, "fork(") || has(line, "clone");
        if (!is_start || has(line, "resumed>") || has(line, "CLONE_THREAD")) continue;
        if (has(line, "CLONE_VM") && has(line, "CLONE_VFORK"))
            ++starts;
        else
            copies += line + "\n";
    }
    CHECK(copies == "");
    CHECK(starts == processes_to_trace);
}

TEST_CASE("SP15: whatever the library opens is close-on-exec from its first moment on") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return; // they open files of their own
#endif
    auto const traced =
        trace_child("opens everything",
                    "-e "
                    "trace=access,faccessat,open,openat,creat,socket,socketpair,accept,accept4,"
                    "pipe,pipe2,eventfd2,"
                    "epoll_create,epoll_create1,timerfd_create,memfd_create,signalfd4,dup,fcntl");
    if (!traced.was_traced) {
        MESSAGE("not tried: no strace here");
        return;
    }
    INFO(traced.output);
    CHECK(has(traced.output, "all opened"));
    int opened = 0;
    bool has_begun = false;
    std::string open_to_children;
    for (std::string const& line : traced.lines) {
        has_begun |= has(line, begin_here);
        if (!has_begun || has(line, "access")) continue;
        bool const is_other_control = has(line, "fcntl(") && !has(line, "F_DUPFD");
        if (is_other_control || has(line, " = -1 ") || has(line, "resumed>") || has(line, "+++ ") ||
            has(line, "--- "))
            continue;
        ++opened;
        if (!has(line, "CLOEXEC")) open_to_children += line + "\n";
    }
    CHECK(opened > 20);
    CHECK(open_to_children == "");
}

TEST_CASE("a process outside of a task is refused") {
    CHECK_THROWS_AS(weft::open_process({"true"}), weft::no_event_loop_error);
    CHECK_THROWS_WITH_AS(weft::run_process({"true"}), doctest::Contains("run_process needs a task"),
                         weft::no_event_loop_error);
}

TEST_CASE("a command reads as a shell would read it") {
    CHECK(weft::command({"a", "b c", "it's", ""}).to_string() == "a 'b c' 'it'\\''s' ''");
    CHECK(weft::command("a b").to_string() == "'a b'");
}

TEST_SUITE_END();
