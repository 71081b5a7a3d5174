#include <weft/streams/process.hpp>

#include "processes.hpp"

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
#include <optional>
#include <string>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

// Talking to processes: their input, their outputs, and who gives up in the middle.

TEST_SUITE_BEGIN("streams.run_process");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;

} // namespace

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

TEST_CASE("SP9: floods in both outputs are collected") {
    run_with_processes([] {
        auto const flood = weft::run_process(
            "head -c 2000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait", {.check = false});
        check(flood.returncode == 0, "it came to its end");
        check(flood.stdout_data->size() == 2'000'000 && flood.stderr_data->size() == 3'000'000,
              "all of both");
    });
}

TEST_CASE("SP9: a process that closes its outputs and lives on is waited for") {
    run_with_processes([] {
        int go[2];
        int told[2];
        check(::pipe2(go, O_CLOEXEC) == 0 && ::pipe2(told, O_CLOEXEC) == 0, "pipes");
        weft::unique_fd its_input(go[0]), ours(go[1]), its_word(told[1]);
        auto word = weft::pipe_receive_stream::from_descriptor(weft::unique_fd(told[0]));
        std::string const number = std::to_string(its_word.get());
        weft::event ended;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                auto const result = weft::run_process(
                    "echo last; exec >&- 2>&-; echo closed > /proc/$$/fd/" + number +
                        "; read line; exit 4",
                    {.stdin_ = its_input.get(), .check = false, .pass_fds = {its_word.get()}});
                check(result.stdout_data == "last\n" && result.stderr_data == "", "until then");
                check(result.returncode == 4, "its own end");
                ended.set();
            });
            check(read_line(word) == "closed", "it has closed them");
            weft::wait_all_tasks_blocked();
            check(!ended.is_set(), "it is waited for");
            ours.reset();
        });
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

TEST_SUITE_END();
