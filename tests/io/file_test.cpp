#include <weft/io/file.hpp>

#include "io/scratch.hpp"
#include "support/address_space.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"
#include "support/traced_child.hpp"

#include <weft/io/path.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/capacity_limiter.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using weft::file;
using weft::open_file;
using weft::path;
using weft::wrap_file;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

template <class Call> std::errc error_of(Call call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return std::errc(failure.code().value());
    }
    return {};
}

bool is_unsupported(auto call) { return error_of(call) == std::errc::operation_not_supported; }

std::string many_lines(int count) {
    std::string text;
    for (int i = 0; i < count; ++i)
        text += "line " + std::to_string(i) + " \xc3\xa4\n";
    return text;
}

std::atomic<int> pipe_signals = 0;

// Counts instead of ending the process.
class pipe_signals_counted {
public:
    pipe_signals_counted() {
        pipe_signals = 0;
        struct ::sigaction action {};
        action.sa_handler = [](int) { ++pipe_signals; };
        ::sigaction(SIGPIPE, &action, &before_);
    }
    ~pipe_signals_counted() { ::sigaction(SIGPIPE, &before_, nullptr); }
    pipe_signals_counted(pipe_signals_counted const&) = delete;
    pipe_signals_counted& operator=(pipe_signals_counted const&) = delete;

private:
    struct ::sigaction before_ {};
};

int pipe_without_reader() {
    int ends[2];
    check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
    ::close(ends[0]);
    return ends[1];
}

weft::test::child_program const closes_without_threads("closes a file without threads", [] {
    scratch const place;
    std::string const name = (place / "written").as_posix();
    weft::run({.workers = 1}, [&] {
        int const fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        file open = wrap_file(fd);
        open.write("all of it");
        weft::test::allow_more_address_space(1 << 20); // no thread's stack fits in there
        try {
            open.close();
            std::puts("no error");
        } catch (std::system_error const& failure) {
            std::puts(failure.what());
        }
        std::printf("closed: %d, descriptor gone: %d\n", open.closed(), ::fcntl(fd, F_GETFD) < 0);
        std::ifstream written(name);
        std::puts(std::string(std::istreambuf_iterator<char>(written), {}).c_str());
    });
});

weft::test::child_program const writes_in_vain("writes to a device that takes nothing", [] {
    weft::run({.workers = 1}, [] {
        file device = open_file("/dev/null", "wb", {.buffering = 0});
        check(error_of([&] { device.write("x"); }) == std::errc::io_error, "told");
        device.close();
        std::puts("told");
    });
});

} // namespace

TEST_SUITE_BEGIN("io.file");

TEST_CASE("AF2, FS2: a pipe that nobody reads any more is an error and raises no signal") {
    pipe_signals_counted const counted;
    run_test({.seeds = {0}}, [] {
        file raw = wrap_file(pipe_without_reader());
        check(error_of([&] {
                  raw.write("x");
                  raw.flush();
              }) == std::errc::broken_pipe,
              "a descriptor");
        file buffered = wrap_file(::fdopen(pipe_without_reader(), "w"));
        check(error_of([&] {
                  buffered.write("x");
                  buffered.flush();
              }) == std::errc::broken_pipe,
              "a C stream");
        file closed = wrap_file(::fdopen(pipe_without_reader(), "w"));
        check(error_of([&] {
                  closed.write("x");
                  closed.close();
              }) == std::errc::broken_pipe,
              "a C stream that is closed");
        {
            file dropped = wrap_file(::fdopen(pipe_without_reader(), "w"));
            dropped.write("x");
        }
    });
    CHECK(pipe_signals == 0);
}

TEST_CASE("AF2: errors of opening are those of open(2), with the path in the text") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        check(error_of([&] { open_file(place / "none"); }) == std::errc::no_such_file_or_directory,
              "missing");
        check(error_of([&] { open_file(place / ""); }) == std::errc::is_a_directory, "directory");
        check(error_of([&] { open_file(place / "", "w"); }) == std::errc::is_a_directory,
              "to write");
        (place / "loop").symlink_to("loop");
        check(error_of([&] { open_file(place / "loop"); }) ==
                  std::errc::too_many_symbolic_link_levels,
              "loop");
        (place / "loop").unlink();
        (place / "there").touch();
        check(error_of([&] { open_file(place / "there", "x"); }) == std::errc::file_exists, "x");
        std::string text;
        try {
            open_file("/no/such/file");
        } catch (std::system_error const& failure) {
            text = failure.what();
        }
        check(text == "cannot open '/no/such/file': No such file or directory", text);
    });
    CHECK_THROWS_WITH_AS(open_file(place / "there"), doctest::Contains("open_file needs a task"),
                         weft::no_event_loop_error);
}

TEST_CASE("AF8, E5: outside of a run the error names the call on a file, and the file stays as it was") {
    scratch const place;
    std::optional<file> kept;
    auto const names = [](char const* call, auto&& made) {
        CHECK_THROWS_WITH_AS(made(), doctest::Contains((std::string(call) + " needs a task").c_str()),
                             weft::no_event_loop_error);
    };
    weft::run({.workers = 1}, [&] { kept = open_file(place / "new", "w+"); });
    names("read", [&] { kept->read(); });
    names("readline", [&] { kept->readline(); });
    names("write", [&] { kept->write("x"); });
    names("seek", [&] { kept->seek(0); });
    names("flush", [&] { kept->flush(); });
    names("close", [&] { kept->close(); });
    weft::run({.workers = 1}, [&] {
        kept->write("text");
        kept->close();
    });
    CHECK(kept->closed());
}

TEST_CASE("AF2: modes and options that make no sense are refused before anything is opened") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {}}, [&] {
        path const name = place / "new";
        for (char const* const mode : {"", "q", "rw", "b", "+", "wbt", "ww", "rU", "w++", "r b"})
            check_throws<std::invalid_argument>([&] { open_file(name, mode); }, mode);
        auto const refused = [&](char const* mode, weft::open_options const& how) {
            check_throws<std::invalid_argument>([&] { open_file(name, mode, how); }, mode);
        };
        refused("wb", {.encoding = "utf-8"});
        refused("wb", {.errors = "strict"});
        refused("wb", {.newline = "\n"});
        refused("w", {.buffering = 0});
        refused("w", {.buffering = -2});
        check_throws<weft::lookup_error>(
            [&] { open_file(name, "w", {.encoding = "no-such-encoding"}); }, "encoding");
        refused("w", {.errors = "sometimes"});
        refused("w", {.newline = "\n\n"});
        check_throws<std::invalid_argument>([&] { open_file(std::string("a\0b", 3), "w"); }, "NUL");
        check(!name.exists(), "nothing was made");
    });
}

TEST_CASE("AF3: each mode opens, makes, empties and appends as Python has it") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "file";
        name.unlink({.missing_ok = true});
        auto const with = [&](char const* mode, auto use) {
            file opened = open_file(name, mode);
            check(opened.mode() == mode && opened.opened_path() == name, "what it was opened with");
            use(opened);
            opened.close();
            return name.read_bytes();
        };
        check(with("x", [](file& f) { f.write("new"); }) == "new", "x");
        check(with("a",
                   [](file& f) {
                       check(f.tell() == 3, "at the end");
                       f.write("er");
                       check(f.tell() == 5, "behind it");
                   }) == "newer",
              "a");
        check(with("r+b",
                   [](file& f) {
                       check(f.read(1) == "n", "read");
                       f.write("EW");
                       check(f.tell() == 3, "in between");
                       check(f.read() == "er", "on");
                   }) == "nEWer",
              "r+");
        check(with("a+b",
                   [](file& f) {
                       f.seek(0);
                       check(f.read(2) == "nE", "reads anywhere");
                       f.write("!");
                       f.seek(0);
                       check(f.read() == "nEWer!", "writes at the end");
                   }) == "nEWer!",
              "a+");
        check(with("w+",
                   [](file& f) {
                       check(f.read().empty(), "emptied");
                       f.write("ab");
                       f.seek(0);
                       check(f.read() == "ab", "back");
                   }) == "ab",
              "w+");
    });
}

TEST_CASE("AF7: what the mode does not allow is operation_not_supported") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        file writes = open_file(place / "file", "w");
        check(is_unsupported([&] { writes.read(); }), "read");
        check(is_unsupported([&] { writes.readline(); }), "readline");
        file reads = open_file(place / "file", "rb");
        check(is_unsupported([&] { reads.write("x"); }), "write");
        check(is_unsupported([&] { reads.truncate(); }), "truncate");
        file text = open_file(place / "file", "r");
        std::array<char, 4> space{};
        check(is_unsupported([&] { text.read1(); }), "read1 of a text");
        check(is_unsupported([&] { text.readinto(weft::as_buffer(space)); }), "readinto of a text");
        check(is_unsupported([&] { text.seek(1, SEEK_CUR); }), "relative");
        check(is_unsupported([&] { text.seek(-1, SEEK_END); }), "from the end");
        check(text.seek(0, SEEK_END) == 0 && text.seek(0, SEEK_CUR) == 0, "both are fine with 0");
        check(text.readable() && !text.writable() && text.seekable() && text.is_text(),
              "and says so");
    });
}

TEST_CASE("AF5: after close() everything is refused, and close() is idempotent") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        file closed = open_file(place / "file", "w+b");
        closed.write("kept");
        closed.close();
        closed.close();
        check(closed.closed(), "closed");
        std::array<char, 4> space{};
        auto const refused = [](auto call) { check_throws<std::invalid_argument>(call, "closed"); };
        refused([&] { closed.read(); });
        refused([&] { closed.readline(); });
        refused([&] { closed.readinto(weft::as_buffer(space)); });
        refused([&] { closed.write("x"); });
        refused([&] { closed.seek(0); });
        refused([&] { closed.tell(); });
        refused([&] { closed.flush(); });
        refused([&] { closed.truncate(); });
        refused([&] { closed.fileno(); });
        file moved = open_file(place / "file", "rb");
        file const other = std::move(moved);
        check(moved.closed(), "moved from"); // NOLINT
        refused([&] { moved.read(); });
        moved.close();
        check((place / "file").read_bytes() == "kept", "written out");
    });
}

TEST_CASE("AF3: lines, pieces and the rest of a file larger than any buffer are what was written") {
    scratch const place;
    std::string const text = many_lines(20'000);
    run_test({.workers = {1, 2}, .seeds = {0}}, [&] {
        path const name = place / "large";
        {
            file out = open_file(name, "w");
            std::vector<std::string> lines;
            for (std::size_t from = 0; from < text.size();) {
                std::size_t const end = text.find('\n', from) + 1;
                lines.push_back(text.substr(from, end - from));
                from = end;
            }
            out.writelines(lines);
            check(out.tell() == text.size(), "octets, not characters");
            out.close();
        }
        for (char const* const mode : {"r", "rb"}) {
            file in = open_file(name, mode);
            std::string all;
            for (std::string const& line : in)
                all += line;
            check(all == text, "by lines");
            in.seek(0);
            all.clear();
            for (std::string piece; !(piece = in.read(997)).empty();)
                all += piece;
            check(all == text, "by pieces");
            in.seek(0);
            check(in.readline(5) == "line " && in.readline() == "0 \xc3\xa4\n", "a part of a line");
            check(in.read() == text.substr(10) && in.read().empty(), "the rest, then nothing");
            check(in.readlines().empty(), "no lines");
        }
        check(open_file(name, "r").readlines().size() == 20'000, "readlines");
        check(name.read_text() == text && name.read_bytes() == text, "at once");
    });
}

TEST_CASE("AF3: a size far beyond the file's end costs no more memory than what there is") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        constexpr std::ptrdiff_t largest = std::numeric_limits<std::ptrdiff_t>::max();
        path const name = place / "small";
        std::string const content = many_lines(10'000);
        name.write_bytes(content);
        for (std::ptrdiff_t const size : {std::ptrdiff_t(1) << 40, std::ptrdiff_t(1) << 50, largest}) {
            file octets = open_file(name, "rb");
            check(octets.read(10) == content.substr(0, 10), "a part of it");
            check(octets.read(size) == content.substr(10) && octets.read(size).empty(), "the rest");
            octets.seek(0);
            std::string gathered;
            while (gathered.size() < content.size())
                gathered += octets.read1(size);
            check(gathered == content && octets.read1(size).empty(), "piece by piece");
            file pieces = wrap_file(::dup(octets.fileno()), true); // where the other one stands
            pieces.seek(0);
            check(pieces.read(size) == content && pieces.tell() == content.size(), "all of it");
            file text = open_file(name, "r");
            check(text.read(size) == content, "text");
        }
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        file from = wrap_file(ends[0]);
        file to = wrap_file(ends[1]);
        to.write("some of it");
        check(from.read1(largest) == "some of it", "what is in the pipe");
        to.write("the rest");
        to.close();
        check(from.read(largest) == "the rest", "to the end of the pipe");
    });
}

TEST_CASE("AF3: a device of which write(2) says that it took nothing is an error, not tried for ever") {
    auto const traced = weft::test::trace_child("writes to a device that takes nothing",
                                                "-P /dev/null -e trace=write -e inject=write:retval=0");
    if (!traced.was_traced) {
        MESSAGE("not tried: no strace here");
        return;
    }
    INFO(traced.output);
    CHECK(traced.exit_code == 0);
    CHECK(weft::test::has(traced.output, "told"));
}

TEST_CASE("AF3: readinto() fills the buffer, read1() and readinto1() are one read") {
    scratch const place;
    std::string const data(300'000, 'x');
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "data";
        name.write_bytes(data);
        file in = open_file(name, "rb");
        std::vector<char> space(200'000);
        check(in.readinto(weft::as_buffer(space)) == 200'000 && in.tell() == 200'000, "full");
        check(in.seek(-100, SEEK_CUR) == 199'900, "back");
        check(in.readinto(weft::as_buffer(space)) == 100'100, "to the end");
        check(in.readinto(weft::as_buffer(space)) == 0, "at the end");
        in.seek(0);
        check(in.read1(10).size() == 10, "some");
        std::size_t const rest = in.read1().size();
        check(rest > 0 && rest < data.size(), "a buffer full");
        check(in.read1(0).empty() && in.tell() == 10 + rest, "nothing");
        check(in.readinto1(weft::as_buffer(space)) > 0, "into");
    });
}

TEST_CASE("AF3: seek(), tell() and truncate() agree with each other across buffers") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "file";
        file both = open_file(name, "w+b");
        both.write("0123456789");
        check(both.tell() == 10 && both.seek(2) == 2 && both.read(2) == "23",
              "gathered data first");
        check(both.seek(-1, SEEK_CUR) == 3 && both.seek(1, SEEK_CUR) == 4, "relative");
        check(both.seek(-2, SEEK_END) == 8 && both.read() == "89", "from the end");
        check(both.seek(4) == 4 && both.truncate() == 4 && both.tell() == 4, "cut here");
        check(both.truncate(6) == 6 && both.tell() == 4, "longer, and the position stays");
        both.seek(0);
        check(both.read() == std::string("0123\0\0", 6), "zeros");
        check(both.seek(100) == 100 && both.read().empty(), "behind the end");
        check(error_of([&] { both.seek(-1); }) == std::errc::invalid_argument, "negative");
        check(error_of([&] { both.seek(-101, SEEK_CUR); }) == std::errc::invalid_argument,
              "negative");
        check(error_of([&] { both.seek(INT64_MIN, SEEK_CUR); }) == std::errc::value_too_large,
              "far");
        check_throws<std::invalid_argument>([&] { both.seek(0, 77); }, "whence");
        check(both.tell() == 100, "still there");
        both.seek(1);
        both.read(1);
        both.write("X"); // where reading has come to, not where the buffer has
        both.flush();
        check(name.read_bytes() == std::string("01X3\0\0", 6), "in place");
    });
}

TEST_CASE("AF3: buffering: none writes at once, lines at each newline, others when it is full") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "buffered";
        file none = open_file(name, "wb", {.buffering = 0});
        none.write("a");
        check(name.read_bytes() == "a", "at once");
        file lines = open_file(name, "w", {.buffering = 1});
        lines.write("a");
        check(name.read_bytes().empty(), "gathered");
        lines.write("b\nc");
        check(name.read_bytes() == "ab\nc", "with the newline");
        file some = open_file(name, "wb", {.buffering = 4});
        some.write("abcd");
        check(name.read_bytes().empty(), "fits");
        some.write("e");
        check(name.read_bytes() == "abcd", "full");
        some.flush();
        check(name.read_bytes() == "abcde", "flush()");
    });
}

TEST_CASE(
    "AF3: without a buffer nothing is read ahead: the descriptor stands where the file does") {
    scratch const place;
    std::string const text = "one\ntwo\nthree\n" + std::string(50'000, 'x');
    run_test([&] {
        (place / "file").write_bytes(text);
        file in = open_file(place / "file", "rb", {.buffering = 0});
        std::string taken = in.readline();
        auto const expect_here = [&](char const* after) {
            check(text.starts_with(taken) &&
                      ::lseek(in.fileno(), 0, SEEK_CUR) == ::off_t(taken.size()),
                  std::string(after) + ": the descriptor stands right behind what was taken");
        };
        expect_here("readline()");
        taken += in.read(2);
        expect_here("read()");
        taken += in.read1(2);
        expect_here("read1()");
        std::string space(30'000, '\0');
        taken += space.substr(0, in.readinto(weft::as_buffer(space)));
        expect_here("readinto()");
        in.seek(-1, SEEK_CUR);
        taken.pop_back();
        taken += in.read(3);
        expect_here("seek() and read()");
        taken += in.read();
        check(taken == text, "nothing is lost");
        expect_here("read() to the end");
    });
}

TEST_CASE("AF4: destruction writes out what was gathered") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "kept";
        { open_file(name, "w").write("gathered"); }
        check(name.read_bytes() == "gathered", "written");
        file replaced = open_file(name, "w");
        replaced.write("other");
        replaced = open_file(place / "another", "w");
        check(name.read_bytes() == "other", "by assignment, too");
    });
}

TEST_CASE(
    "AF6: wrapped descriptors and C streams keep their mode, their position and their owner") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        std::string const name = (place / "wrapped").as_posix();
        path(name).write_bytes("one\ntwo\nthree\n");
        int const fd = ::open(name.c_str(), O_RDONLY | O_CLOEXEC);
        file lent = wrap_file(fd, false);
        check(lent.fileno() == fd && lent.mode() == "rb" && !lent.opened_path(), "what it is");
        check(lent.readline() == "one\n", "read");
        check(is_unsupported([&] { lent.write("x"); }), "read only");
        lent.close();
        check(::lseek(fd, 0, SEEK_CUR) == 4, "where reading has come to");
        ::close(fd);

        std::FILE* const stream = std::fopen(name.c_str(), "r+");
        char line[16];
        check(std::fgets(line, sizeof line, stream) != nullptr, "used before");
        file wrapped = wrap_file(stream, false);
        check(wrapped.wrapped() == stream, "wrapped");
        check(wrapped.readline() == "two\n" && wrapped.tell() == 8, "goes on");
        wrapped.write("T");
        wrapped.flush();
        wrapped.close();
        check(std::fgetc(stream) == 'h', "the C stream goes on");
        std::fclose(stream);
        check(path(name).read_bytes() == "one\ntwo\nThree\n", "in place");
        check(wrap_file(std::fopen(name.c_str(), "r")).read() == "one\ntwo\nThree\n", "owned");
        check_throws<std::invalid_argument>([] { wrap_file(static_cast<std::FILE*>(nullptr)); },
                                            "null");
        check(error_of([] { wrap_file(-1); }) == std::errc::bad_file_descriptor, "none");
        auto const mode_of = [&](int flags) {
            return wrap_file(::open(name.c_str(), flags | O_CLOEXEC)).mode();
        };
        check(mode_of(O_WRONLY) == "wb" && mode_of(O_RDWR) == "rb+", "modes");
        check(mode_of(O_WRONLY | O_APPEND) == "ab" && mode_of(O_RDWR | O_APPEND) == "ab+", "AF3");
    });
}

TEST_CASE("AF6: a C stream in memory has no descriptor") {
    run_test({.workers = {1}, .seeds = {0}}, [] {
        char space[] = "abc";
        file memory = wrap_file(::fmemopen(space, 3, "r"));
        check(is_unsupported([&] { memory.fileno(); }), "no descriptor");
        check(memory.read(2) == "ab" && memory.read() == "c", "its octets");
    });
}

TEST_CASE("AF3, FS3: a pipe is read as it comes and has no position") {
    run_test({.seeds = {}}, [] {
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        file in = wrap_file(ends[0]);
        file out = wrap_file(ends[1]);
        check(!in.seekable() && error_of([&] { in.tell(); }) == std::errc::invalid_seek, "ESPIPE");
        check(error_of([&] { in.seek(0); }) == std::errc::invalid_seek, "ESPIPE");
        out.write("abc");
        check(in.read1(100) == "abc", "not gathered");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(in.readline() == "later\n", "waits in a thread"); });
            weft::wait_all_tasks_blocked();
            out.write("later\nrest");
            out.close();
        });
        check(in.read() == "rest", "to the end");
    });
}

TEST_CASE("AF1: cancelled before it begins, nothing happens; afterwards it is finished first") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "cancelled";
        name.unlink({.missing_ok = true});
        weft::cancel_scope scope;
        scope.cancel();
        check(!scope.run([&] { open_file(name, "w"); }) && !name.exists(), "not opened");
        file both = open_file(name, "w+b");
        both.write("abc");
        weft::cancel_scope second;
        second.cancel();
        check(!second.run([&] { both.write("d"); }), "write");
        weft::cancel_scope third;
        third.cancel();
        check(!third.run([&] { both.seek(0); }), "seek");
        check(both.tell() == 3, "as before");
    });
    run_test({.seeds = {}}, [&] {
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        file in = wrap_file(ends[0]);
        file out = wrap_file(ends[1]);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::cancel_scope scope;
                std::string got;
                weft::with_task_group([&](weft::task_group& inner) {
                    inner.start_soon([&] { scope.run([&] { got = in.read(3); }); });
                    weft::wait_all_tasks_blocked();
                    scope.cancel();
                    out.write("xyz");
                });
                check(got == "xyz", "nothing read is lost");
            });
        });
    });
}

TEST_CASE(
    "AF1: cancelled at every suspension point, reading takes nothing and writing loses nothing") {
    scratch const place;
    path const name = place / "points";
    weft::test::cancel_at_every_suspension_point([&](weft::test::attempt& at) {
        name.write_bytes(std::string(200'000, 'x'));
        file both = open_file(name, "r+b");
        std::size_t read = 0;
        std::size_t written = 0;
        at.run([&] {
            read += both.read(150'000).size();
            both.seek(0, SEEK_END);
            written += both.write(std::string(100'000, 'y'));
            both.flush();
            both.seek(read);
            read += both.read().size();
        });
        both.close();
        std::string const now = name.read_bytes();
        check(now.size() == 200'000 + written, "what was written is there");
        check(read == 0 || read == 150'000 || read == 300'000, "all of a call or nothing");
    });
}

TEST_CASE("AF4: close() closes also when it is cancelled, and tells afterwards") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "closed";
        file open = open_file(name, "w");
        open.write("all of it");
        weft::cancel_scope scope;
        scope.cancel();
        check(!scope.run([&] { open.close(); }) && open.closed(), "cancelled and closed");
        check(name.read_bytes() == "all of it", "written out");
        file forced = open_file(name, "a");
        forced.write("!");
        weft::close_forcefully(forced);
        check(forced.closed() && name.read_bytes() == "all of it!", "by force, too");
    });
}

TEST_CASE(
    "AF4: what cannot be written is reported by flush() and close(), and the file is closed") {
    run_test({.seeds = {0}}, [] {
        file full = open_file("/dev/full", "wb");
        check(error_of([&] { full.write("x"); }) == std::errc::no_space_on_device, "write");
        full.close();
    });
}

TEST_CASE("R2, AF4: close() closes also where no thread can be had, and writes out what was gathered") {
    if (weft::test::slowdown > 1) return; // the sanitizers need address space without bounds
    auto const end = weft::test::run_child("closes a file without threads");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("no error"));
    CHECK(end.says("closed: 1, descriptor gone: 1"));
    CHECK(end.says("all of it"));
}

TEST_CASE("AF8: tasks that read one file share it out without tearing a line") {
    scratch const place;
    std::string const text = many_lines(5000);
    run_test({.workers = {1, 4}, .seeds = {0, 1}}, [&] {
        path const name = place / "shared";
        name.write_bytes(text);
        file in = open_file(name);
        file out = open_file(place / "copy", "w");
        std::atomic<std::size_t> octets = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int i = 0; i < 8; ++i)
                group.start_soon([&] {
                    for (std::string line; !(line = in.readline()).empty();) {
                        check(line.starts_with("line ") && line.ends_with(" \xc3\xa4\n"), "whole");
                        octets += line.size();
                        out.write(line);
                    }
                });
        });
        out.close();
        check(octets == text.size(), "each once");
        check((place / "copy").stat().st_size == ::off_t(text.size()), "and all written");
    });
}

TEST_CASE("AF9: the limiter that is given bounds the file's threads") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        weft::capacity_limiter one(1);
        file limited = open_file(place / "limited", "wb", {.buffering = 0, .limiter = &one});
        check(limited.write("x") == 1 && limited.limiter() == &one, "through it");
        file const wrapped = wrap_file(limited.fileno(), false, &one);
        check(wrapped.limiter() == &one, "what is wrapped, too");
        bool written = false;
        weft::with_task_group([&](weft::task_group& group) {
            one.acquire();
            group.start_soon([&] {
                limited.write("y");
                written = true;
            });
            weft::wait_all_tasks_blocked();
            check(!written && one.statistics().tasks_waiting == 1, "waits for the token");
            one.release();
        });
        limited.close();
    });
}

TEST_SUITE_END();
