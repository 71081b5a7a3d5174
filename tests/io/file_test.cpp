#include <weft/io/file.hpp>

#include "io/file_support.hpp"
#include "io/scratch.hpp"
#include "support/run_test.hpp"

#include <weft/io/path.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace {

using weft::file;
using weft::open_file;
using weft::path;
using weft::wrap_file;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

bool is_unsupported(auto call) { return error_of(call) == std::errc::operation_not_supported; }

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
            check(error_of([&] { dropped.write("x"); }) == std::errc::broken_pipe, "a C stream that is dropped");
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

TEST_SUITE_END();
