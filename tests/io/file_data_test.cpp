#include <weft/io/file.hpp>

#include "io/file_support.hpp"
#include "io/scratch.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"
#include "support/traced_child.hpp"

#include <weft/io/path.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

// What a file reads and writes, buffer by buffer.

namespace {

using weft::file;
using weft::open_file;
using weft::path;
using weft::wrap_file;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

weft::test::child_program const writes_in_vain("writes to a device that takes nothing", [] {
    weft::run({.workers = 1}, [] {
        file device = open_file("/dev/null", "wb", {.buffering = 0});
        check(error_of([&] { device.write("x"); }) == std::errc::io_error, "told");
        device.close();
        std::puts("told");
    });
});

} // namespace

TEST_SUITE_BEGIN("io.file_data");

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

TEST_SUITE_END();
