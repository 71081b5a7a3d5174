#include <weft/io/file.hpp>

#include "io/scratch.hpp"
#include "support/run_test.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/path.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace {

using weft::file;
using weft::open_file;
using weft::path;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

bool fails_with(std::errc error, auto call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return failure.code() == error;
    }
    return false;
}

bool is_unsupported(auto call) { return fails_with(std::errc::operation_not_supported, call); }
bool is_invalid_seek(auto call) { return fails_with(std::errc::invalid_seek, call); }

struct text_pipe {
    file in; // text in an encoding
    file out;
};

text_pipe make_text_pipe(std::string const& encoding) {
    int ends[2];
    check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
    weft::unique_fd const end(ends[0]);
    file out = weft::wrap_file(ends[1]);
    return {open_file("/dev/fd/" + std::to_string(end.get()), "r", {.encoding = encoding}),
            std::move(out)};
}

// A call that waits for the other side does so in a thread, where nothing but that side ends it.
void check_no_wait(text_pipe& pipe, auto calls) {
    weft::event done;
    bool in_time = false;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            weft::move_on_after(std::chrono::seconds(5), [&] {
                done.wait();
                in_time = true;
            });
            if (!in_time) pipe.out.close();
        });
        calls();
        done.set();
    });
    check(in_time, "it does not wait for the other side");
}

} // namespace

TEST_SUITE_BEGIN("io.file_encoding");

TEST_CASE("AF3: where tell() is refused, write() is, although all that was handed on is taken") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        struct sample {
            std::string encoding, octets;
            std::size_t taken; // in characters; the decoder has had 16384 octets then
            std::string rest;
        };
        std::string shifted = "a\x1b$B";
        for (int i = 0; i < 8190 + 3; ++i)
            shifted += "$\"";
        path const name = place / "refused";
        for (sample const& each :
             {sample{"iso-2022-jp", shifted + "\x1b(B\n", 8191, "\u3042\u3042\u3042\n"},
              sample{"cp1258", std::string(16383, '.') + "abcd", 16383, "abcd"},
              sample{"latin-1", std::string(16384, '.') + "abcd", 16384, "abcd"}}) {
            name.write_bytes(each.octets);
            file both = open_file(name, "r+", {.encoding = each.encoding});
            both.read(std::ptrdiff_t(each.taken));
            for (int i = 0; i < 2; ++i)
                check(is_unsupported([&] { both.write("X"); }), each.encoding);
            check(is_unsupported([&] { both.tell(); }), each.encoding);
            check(both.read() == each.rest, "nothing is lost");
            check(both.write("X") == 1, "at the end");
            both.close();
            check(name.read_bytes() == each.octets + "X", each.encoding);
        }
        name.write_bytes(std::string(16384, '.'));
        file all = open_file(name, "r+", {.encoding = "latin-1"});
        check(all.read(16384).size() == 16384 && all.write("X") == 1, "the end, not yet seen");
        all.close();
        check(name.read_bytes() == std::string(16384, '.') + "X", "there");
    });
}

TEST_CASE("AF3, FS3: tell() of text from a pipe is refused at once and holds nothing back") {
    run_test({.workers = {1, 2}, .seeds = {}}, [] {
        text_pipe pipe = make_text_pipe("latin-1");
        pipe.out.write("one\n");
        check(pipe.in.readline() == "one\n", "what there is");
        check_no_wait(pipe, [&] {
            check(is_invalid_seek([&] { pipe.in.tell(); }), "tell()");
            check(is_invalid_seek([&] { pipe.in.seek(0, SEEK_CUR); }), "seek()");
            check(is_invalid_seek([&] { pipe.in.seek(0); }), "seek()");
        });
        pipe.out.write("two\nthree");
        check(pipe.in.readline() == "two\n", "as it comes");
        check(is_invalid_seek([&] { pipe.in.tell(); }), "in the middle of it");
        pipe.out.close();
        check(pipe.in.read() == "three", "to the end");
    });
}

TEST_CASE("AF2, FS3: an error in what a pipe has given is told without waiting for more") {
    run_test({.workers = {1, 2}, .seeds = {}}, [] {
        text_pipe pipe = make_text_pipe("ascii");
        pipe.out.write("good\xff");
        check(pipe.in.read(4) == "good", "what is good");
        check_no_wait(pipe, [&] {
            for (int i = 0; i < 2; ++i)
                check_throws<std::invalid_argument>([&] { pipe.in.read(1); }, "the error");
        });
    });
}

TEST_CASE("AF2, TX2: a letter that an accent may follow stays in front of what is no text") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "kept";
        std::string const dots(16383, '.'); // the letter ends what is read at once
        struct sample {
            std::string encoding, octets, text;
        };
        for (sample const& each :
             {sample{"cp1258", "a\x8a", "a\ufffd"},
              sample{"cp1258", "za\x8a\xec", "za\ufffd\u0301"},
              sample{"cp1255", "\xe0\xd9", "\u05d0\ufffd"},
              sample{"cp1258", dots + "a\x8a" + "b", dots + "a\ufffd" + "b"}}) {
            name.write_bytes(each.octets);
            for (char const* const errors : {"replace", "ignore"}) {
                weft::text_options const how{.encoding = each.encoding, .errors = errors};
                std::string expected = each.text;
                std::size_t const mark = expected.find("\ufffd");
                if (*errors == 'i' && mark != expected.npos) expected.erase(mark, 3);
                check(name.read_text(how) == expected, each.encoding);
                file in = open_file(name, "r", {.encoding = each.encoding, .errors = errors});
                check(in.read() == expected, each.encoding);
            }
        }
        for (std::string const& before : {std::string("z"), dots}) {
            name.write_bytes(before + "a\x8a");
            file strict = open_file(name, "r", {.encoding = "cp1258"});
            check(strict.read(std::ptrdiff_t(before.size())) == before, "what is good");
            check(strict.read(1) == "a", "up to the error");
            for (int i = 0; i < 2; ++i)
                check_throws<std::invalid_argument>([&] { strict.read(1); }, "the error");
        }
        name.write_bytes("\x1b$B\xff$\"\x1b(B");
        check(name.read_text({.encoding = "iso-2022-jp", .errors = "ignore"}) == "\u3042",
              "a shift is not forgotten");
    });
}

TEST_SUITE_END();
