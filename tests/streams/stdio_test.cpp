#include <weft/streams/standard_streams.hpp>

#include "sockets.hpp"
#include "support/child_process.hpp"
#include "support/few_descriptors.hpp"
#include "support/run_test.hpp"
#include "support/traced_child.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <pty.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

TEST_SUITE_BEGIN("streams.stdio");

namespace {

using namespace std::chrono_literals;
using weft::test::check;
using weft::test::check_throws;

void run_with_descriptors(std::function<void()> const& body, unsigned times = 1) {
    weft::test::run_test({.seeds = {}, .times = times}, body);
}

struct two_fds {
    weft::unique_fd reads;
    weft::unique_fd writes;
};

two_fds blocking_pipe() {
    int ends[2];
    check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
    return {weft::unique_fd(ends[0]), weft::unique_fd(ends[1])};
}

two_fds socket_pair() {
    int ends[2];
    check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "a pair");
    return {weft::unique_fd(ends[0]), weft::unique_fd(ends[1])};
}

// What is written to `writes` is typed at the terminal `reads`.
two_fds terminal() {
    int keyboard = -1;
    int screen = -1;
    check(::openpty(&keyboard, &screen, nullptr, nullptr, nullptr) == 0, "a terminal");
    ::termios settings{};
    ::tcgetattr(screen, &settings);
    settings.c_lflag &= ~tcflag_t(ECHO);
    ::tcsetattr(screen, TCSANOW, &settings);
    return {weft::unique_fd(screen), weft::unique_fd(keyboard)};
}

void write_to(weft::unique_fd const& fd, std::string const& text) {
    check(::write(fd.get(), text.data(), text.size()) == ssize_t(text.size()), "written");
}

bool is_blocking(weft::unique_fd const& fd) {
    return (::fcntl(fd.get(), F_GETFL) & O_NONBLOCK) == 0;
}

// A receive is cancelled, loses nothing, and leaves the descriptor as it was.
void check_input(two_fds const& fds) {
    weft::any_byte_receive_stream input = weft::receive_from_shared(fds.reads.get());
    write_to(fds.writes, "one\n");
    check(input.receive() == "one\n", "what was there");
    weft::cancel_scope scope;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { check(!scope.run([&] { input.receive(); }), "cut short"); });
        weft::wait_all_tasks_blocked();
        check_throws<weft::busy_resource_error>([&] { input.receive(); }, "X6: one reader");
        scope.cancel();
    });
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { check(input.receive() == "two\n", "what came later"); });
        weft::wait_all_tasks_blocked();
        write_to(fds.writes, "two\n");
    });
    check(is_blocking(fds.reads), "it still blocks for others");
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            check_throws<weft::closed_resource_error>([&] { input.receive(); }, "closed under it");
        });
        weft::wait_all_tasks_blocked();
        input.close();
    });
    check(::fcntl(fds.reads.get(), F_GETFD) >= 0, "the descriptor is not ours to close");
}

void check_output(two_fds const& fds) {
    weft::any_byte_send_stream output = weft::send_to_shared(fds.writes.get());
    std::string const much(1'000'000, 'x');
    std::string got;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { output.send(much); });
        weft::any_byte_receive_stream input = weft::receive_from_shared(fds.reads.get());
        while (got.size() < much.size())
            got += input.receive();
    });
    check(got == much && is_blocking(fds.writes), "all of it, and it still blocks for others");
    bool const sent = weft::move_on_after(20ms, [&] { output.send(much); }); // nobody reads
    check(!sent, "cut short");
}

// The program is the child; its standard input is a pipe that nobody ever writes to.
weft::test::child_program const leaves("stdin does not delay", [] {
    two_fds const never = blocking_pipe();
    ::dup2(never.reads.get(), STDIN_FILENO);
    weft::run([] {
        weft::with_task_group([](weft::task_group& group) {
            group.start_soon([] { weft::standard_input().receive(); });
            weft::wait_all_tasks_blocked();
            group.cancel();
        });
    });
    std::exit(7);
});

weft::test::child_program const writes_in_vain("sends to a device that takes nothing", [] {
    weft::run({.workers = 1}, [] {
        weft::unique_fd const null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
        try {
            weft::send_to_shared(null.get()).send("x");
        } catch (weft::broken_resource_error const& failure) {
            std::puts(failure.what());
        }
    });
});

weft::test::child_program const says("says something", [] {
    weft::run([] {
        weft::standard_output().send("out ");
        weft::standard_error().send("err");
    });
});

} // namespace

TEST_CASE("a pipe is read without blocking it for others") {
    run_with_descriptors([] { check_input(blocking_pipe()); }, 10);
}
TEST_CASE("a socket is read without blocking it for others") {
    run_with_descriptors([] { check_input(socket_pair()); }, 10);
}
TEST_CASE("a terminal is read without blocking it for others") {
    run_with_descriptors([] { check_input(terminal()); }, 10);
}
TEST_CASE("the controlling side of a terminal is read without being opened again") {
    run_with_descriptors(
        [] {
            two_fds sides = terminal();
            ::termios settings{};
            ::tcgetattr(sides.reads.get(), &settings);
            ::cfmakeraw(&settings);
            ::tcsetattr(sides.reads.get(), TCSANOW, &settings);
            std::swap(sides.reads, sides.writes);
            check_input(sides);
        },
        10);
}

TEST_CASE("pipes, sockets and terminals are written without blocking them for others") {
    run_with_descriptors([] { check_output(blocking_pipe()); });
    run_with_descriptors([] { check_output(socket_pair()); });
}

TEST_CASE("regular files are read and written where they stand, which is shared") {
    run_with_descriptors([] {
        weft::unique_fd const file(::memfd_create("file", MFD_CLOEXEC));
        weft::send_to_shared(file.get()).send("abcdef");
        check(::lseek(file.get(), 0, SEEK_CUR) == 6, "it stands behind what was written");
        ::lseek(file.get(), 2, SEEK_SET);
        auto input = weft::receive_from_shared(file.get());
        check(input.receive(2) == "cd", "from where it stood");
        check(::lseek(file.get(), 0, SEEK_CUR) == 4, "it stands behind what was read");
        check(input.receive() == "ef", "the rest");
        check_throws<weft::end_of_stream>([&] { input.receive(); }, "the end");
    });
}

TEST_CASE("devices that cannot be waited for") {
    run_with_descriptors([] {
        weft::unique_fd const null(::open("/dev/null", O_RDWR | O_CLOEXEC));
        weft::unique_fd const zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
        check_throws<weft::end_of_stream>([&] { weft::receive_from_shared(null.get()).receive(); },
                                          "nothing");
        weft::send_to_shared(null.get()).send("gone");
        check(weft::receive_from_shared(zero.get()).receive(3) == std::string(3, '\0'), "zeros");
    });
}

namespace {

two_fds raw_terminal() {
    two_fds sides = terminal();
    ::termios settings{};
    ::tcgetattr(sides.reads.get(), &settings);
    ::cfmakeraw(&settings);
    ::tcsetattr(sides.reads.get(), TCSANOW, &settings);
    return sides;
}

// Until it would block.
template <class Call> void exhaust(weft::unique_fd const& fd, Call call) {
    int const flags = ::fcntl(fd.get(), F_GETFL);
    ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK);
    char octets[64] = {};
    while (call(fd.get(), octets, sizeof octets) > 0) {
    }
    ::fcntl(fd.get(), F_SETFL, flags);
}

// The kernel moves what is written on to the terminal, and has room again, until that is full, too.
void fill(two_fds const& sides) {
    constexpr int most_for_the_terminal = 4095;
    int moved = 0;
    while (moved < most_for_the_terminal) {
        exhaust(sides.writes, ::write);
        check(::ioctl(sides.reads.get(), FIONREAD, &moved) == 0, "a terminal");
    }
    exhaust(sides.writes, ::write);
}

// What is ready is taken by somebody else before the thread that uses it has begun: so it blocks.
// Then the stream is closed.
void close_while_a_thread_waits(weft::resource& stream, std::function<void()> const& use,
                                std::function<void()> const& take, bool begun) {
    weft::capacity_limiter& threads = weft::to_thread::current_default_thread_limiter();
    threads.set_total_tokens(0);
    bool told = false;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            weft::move_on_after(10s * weft::test::slowdown, [&] {
                check_throws<weft::closed_resource_error>(use, "closed under it");
                told = true;
            });
        });
        weft::wait_all_tasks_blocked();
        take();
        if (begun) threads.set_total_tokens(1);
        while (threads.borrowed_tokens() < double(begun))
            weft::lowlevel::checkpoint();
        stream.close();
    });
    check(told, "at once");
    threads.set_total_tokens(1);
}

// A thread that was left behind is done once its device has something for it.
void end_threads(std::function<void()> const& feed) {
    while (weft::to_thread::current_default_thread_limiter().borrowed_tokens() > 0) {
        feed();
        weft::lowlevel::checkpoint();
    }
}

} // namespace

TEST_CASE("KS8, SP12: close() tells who waits for a thread that reads") {
    run_with_descriptors([] {
        for (bool const begun : {false, true}) {
            two_fds const sides = raw_terminal(); // its controlling side is not opened again
            auto input = weft::receive_from_shared(sides.writes.get());
            write_to(sides.reads, "x");
            close_while_a_thread_waits(
                input, [&] { input.receive(); }, [&] { exhaust(sides.writes, ::read); }, begun);
            end_threads([&] { write_to(sides.reads, "y"); });
        }
    });
}

TEST_CASE("KS8, SP12: close() tells who waits for a thread that writes") {
    run_with_descriptors([] {
        for (bool const begun : {false, true}) {
            two_fds const sides = raw_terminal();
            auto output = weft::send_to_shared(sides.writes.get());
            close_while_a_thread_waits(
                output, [&] { output.send("x"); }, [&] { fill(sides); }, begun);
            end_threads([&] { exhaust(sides.reads, ::read); });
        }
    });
}

TEST_CASE("KS18: whom another reader was faster than waits again, also where the file does not block") {
    run_with_descriptors(
        [] {
            weft::unique_fd const counter(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
            std::atomic<int> received = 0;
            weft::with_task_group([&](weft::task_group& group) {
                for (int reader = 0; reader < 4; ++reader)
                    group.start_soon([&] {
                        auto input = weft::receive_from_shared(counter.get());
                        check(input.receive(8).size() == 8, "a number");
                        ++received; // they get it one after the other
                    });
                for (int number = 1; number <= 4; ++number) {
                    weft::wait_all_tasks_blocked();
                    check(::eventfd_write(counter.get(), 1) == 0, "written");
                    while (received < number)
                        weft::lowlevel::checkpoint();
                }
            });
        },
        20);
}

TEST_CASE("KS18: whose data do not fit yet waits until they do, also where the file does not block") {
    auto const body = [] {
        weft::unique_fd const counter(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
        std::atomic<bool> sent = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                ::eventfd_t const largest = ~::eventfd_t(1);
                weft::send_to_shared(counter.get())
                    .send(std::string_view(reinterpret_cast<char const*>(&largest), sizeof largest));
                sent = true;
            });
            weft::wait_all_tasks_blocked();
            check(!sent, "it is full, and poll(2) says that it is ready");
            ::eventfd_t number = 0;
            check(::eventfd_read(counter.get(), &number) == 0 && number == 1, "what was in there");
        });
        check(sent, "then it fits");
    };
    run_with_descriptors(body, 10); // the data may come too late for it
}

TEST_CASE("the end of a terminal is the end of the stream") {
    run_with_descriptors([] {
        two_fds sides = terminal();
        auto input = weft::receive_from_shared(sides.reads.get());
        write_to(sides.writes, "\x04"); // Ctrl-D
        check_throws<weft::end_of_stream>([&] { input.receive(); }, "Ctrl-D");
        sides.writes.reset();
        check_throws<weft::end_of_stream>([&] { input.receive(); }, "hung up");
    });
}

TEST_CASE("a writer whose reader is gone hears of it, and SIGPIPE is not raised") {
    run_with_descriptors([] {
        two_fds fds = blocking_pipe();
        auto output = weft::send_to_shared(fds.writes.get());
        fds.reads.reset();
        check_throws<weft::broken_resource_error>([&] { output.send("x"); }, "broken");
        auto pipe = weft::create_pipe();
        pipe.receive.close();
        check_throws<weft::broken_resource_error>([&] { pipe.send.send("x"); }, "broken");
        ::sigset_t pending;
        ::sigpending(&pending);
        check(::sigismember(&pending, SIGPIPE) == 0, "none is left behind");
    });
}

TEST_CASE("a device of which write(2) says that it took nothing is an error, not tried for ever") {
    auto const traced = weft::test::trace_child("sends to a device that takes nothing",
                                                "-P /dev/null -e trace=write -e inject=write:retval=0");
    if (!traced.was_traced) {
        MESSAGE("not tried: no strace here");
        return;
    }
    INFO(traced.output);
    CHECK(traced.exit_code == 0);
    CHECK(weft::test::has(traced.output, "Input/output error"));
}

TEST_CASE("what is not open is an error that names it") {
    run_with_descriptors([] {
        try {
            weft::receive_from_shared(4321);
            check(false, "refused");
        } catch (std::system_error const& failure) {
            check(failure.code().value() == EBADF &&
                      std::string(failure.what()).find("4321") != std::string::npos,
                  "which");
        }
    });
}

TEST_CASE("a task that waits for standard input does not delay the end of the program") {
    CHECK(weft::test::run_child("stdin does not delay").exit_code == 7);
}

TEST_CASE("standard output and error") {
    CHECK(weft::test::run_child("says something").output == "out err");
}

TEST_CASE("both ends of a pipe in one program; adopting what is no pipe is refused") {
    run_with_descriptors([] {
        auto pipe = weft::create_pipe();
        std::string const much(1'000'000, 'y');
        std::string got;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                pipe.send.send(much);
                pipe.send.close();
            });
            for (weft::bytes const& chunk : pipe.receive)
                got += chunk;
        });
        check(got == much, "all of it");
        weft::unique_fd file(::memfd_create("file", MFD_CLOEXEC));
        check_throws<std::invalid_argument>(
            [&] { weft::pipe_receive_stream::from_descriptor(std::move(file)); }, "no pipe");
        check(bool(file), "it was left alone");
        two_fds fds = blocking_pipe();
        auto adopted = weft::pipe_receive_stream::from_descriptor(std::move(fds.reads));
        write_to(fds.writes, "adopted");
        check(adopted.receive() == "adopted" && !fds.reads, "adopted");
    });
}

TEST_CASE("KS2, X1: a reset is told each time, also by a socket that is shared or was adopted as a pipe") {
    run_with_descriptors([] {
        for (bool const adopted : {false, true}) {
            weft::test::connection ends = weft::test::connect_pair();
            weft::unique_fd fd(::dup(ends.here.extra(weft::socket_attribute::raw_socket)));
            weft::any_byte_receive_stream input =
                adopted ? weft::any_byte_receive_stream(weft::pipe_receive_stream::from_descriptor(std::move(fd)))
                        : weft::receive_from_shared(fd.get());
            weft::test::close_with_reset(ends.there);
            for (int time = 0; time < 3; ++time)
                check_throws<weft::broken_resource_error>([&] { input.receive(); }, "each time");
        }
    });
}

weft::test::child_program const adopts_without_descriptors("adopts a pipe without descriptors", [] {
    weft::run({.workers = 1}, [] {
        two_fds fds = blocking_pipe();
        write_to(fds.writes, "there");
        weft::pipe_receive_stream::from_descriptor(weft::unique_fd(::dup(fds.reads.get()))); // what is made once
        try {
            weft::test::few_descriptors const none(0);
            weft::pipe_receive_stream::from_descriptor(std::move(fds.reads));
        } catch (std::system_error const& failure) {
            std::puts(failure.code().value() == EMFILE ? "EMFILE" : failure.what());
        }
        std::puts(weft::pipe_receive_stream::from_descriptor(std::move(fds.reads)).receive().c_str());
    });
});

TEST_CASE("KS15: that there is no descriptor to look with does not make a pipe something else") {
#if defined(__SANITIZE_ADDRESS__)
    MESSAGE("not tried: the sanitizer needs descriptors itself");
#else
    auto const end = weft::test::run_child("adopts a pipe without descriptors");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("EMFILE"));
    CHECK(end.says("there"));
#endif
}

TEST_SUITE_END();
