#include <weft/io/file.hpp>

#include "io/scratch.hpp"
#include "support/run_test.hpp"

#include <weft/io/path.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/error.hpp>

#include <doctest/doctest.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace {

using weft::file;
using weft::open_file;
using weft::path;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

std::string many_lines(int count) {
    std::string text;
    for (int i = 0; i < count; ++i)
        text += "line " + std::to_string(i) + " \xc3\xa4\n";
    return text;
}

bool is_unsupported(auto call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return failure.code() == std::errc::operation_not_supported;
    }
    return false;
}

} // namespace

TEST_SUITE_BEGIN("io.file_text");

TEST_CASE("AF3: text files translate newlines and count characters as their options say") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "text";
        name.write_bytes("a\r\nb\rc\nd");
        auto const lines = [&](std::optional<std::string> newline) {
            return open_file(name, "r", {.newline = std::move(newline)}).readlines();
        };
        using list = std::vector<std::string>;
        check(lines({}) == list{"a\n", "b\n", "c\n", "d"}, "translated");
        check(lines("") == list{"a\r\n", "b\r", "c\n", "d"}, "kept");
        check(lines("\n") == list{"a\r\n", "b\rc\n", "d"}, "\\n");
        check(lines("\r") == list{"a\r", "\nb\r", "c\nd"}, "\\r");
        check(lines("\r\n") == list{"a\r\n", "b\rc\nd"}, "\\r\\n");
        file kept = open_file(name, "r", {.newline = ""});
        check(kept.read(2) == "a\r" && kept.read(1) == "\n", "one character at a time");

        name.write_bytes("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80!");
        file text = open_file(name);
        check(text.read(2) == "\xc3\xa4\xe2\x82\xac" && text.tell() == 5, "characters and octets");
        check(text.read() == "\xf0\x9f\x98\x80!", "the rest");
        file out = open_file(name, "w", {.newline = "\r\n"});
        check(out.write("\xc3\xa4\n") == 2, "characters");
        check_throws<std::invalid_argument>([&] { out.write("\xff"); }, "no UTF-8");
        out.close();
        check(name.read_bytes() == "\xc3\xa4\r\n", "nothing of what was refused");
    });
}

TEST_CASE("AF3: a newline or character that is cut by the buffer's end is one") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {}}, [&] {
        path const name = place / "cut";
        for (std::size_t const before : {16383u, 16382u, 16384u, 65535u}) {
            name.write_bytes(std::string(before, 'x') + "\r\n\xe2\x82\xac\r");
            check(open_file(name).read() == std::string(before, 'x') + "\n\xe2\x82\xac\n", "whole");
            file in = open_file(name);
            check(in.readline().size() == before + 1 && in.read(1) == "\xe2\x82\xac", "by lines");
        }
    });
}

TEST_CASE("AF3: strict text is an error that takes nothing; replace and ignore go on") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "bad";
        name.write_bytes("ab\xff\xc3");
        file strict = open_file(name);
        check(strict.read(2) == "ab", "what is good");
        for (int i = 0; i < 2; ++i)
            check_throws<std::invalid_argument>([&] { strict.read(); }, "again and again");
        check(strict.tell() == 2, "where it was");
        check(open_file(name, "r", {.errors = "replace"}).read() == "ab\xef\xbf\xbd\xef\xbf\xbd",
              "replace");
        check(open_file(name, "r", {.errors = "ignore"}).read() == "ab", "ignore");
    });
}

TEST_CASE("AF2: text in other encodings, with and without byte order marks") {
    scratch const place;
    std::string const text = many_lines(3000);
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "encoded";
        for (char const* const encoding : {"latin-1", "utf-16", "UTF-16LE", "utf_32", "cp1252",
                                           "utf-8-sig", "gb18030"}) {
            file out = open_file(name, "w", {.encoding = encoding});
            std::size_t const half = text.find('\n', 20'000);
            out.write(text.substr(0, half));
            out.write(text.substr(half));
            out.close();
            check(name.read_text({.encoding = encoding}) == text, encoding);
            file in = open_file(name, "r", {.encoding = encoding});
            std::string all;
            for (std::string const& line : in)
                all += line;
            check(all == text, "by lines");
            in.seek(0);
            check(in.readline() == "line 0 \xc3\xa4\n", "again");
            check(is_unsupported([&] { in.tell(); }), "no position");
            file more = open_file(name, "a", {.encoding = encoding});
            more.write("end\n");
            more.close();
            check(name.read_text({.encoding = encoding}) == text + "end\n", "one mark");
        }
        check_throws<std::invalid_argument>(
            [&] { name.write_text("\xe2\x82\xac", {.encoding = "latin-1"}); }, "no such character");
        check(!name.read_bytes().empty(), "untouched");
        name.write_bytes("\xe9");
        check_throws<std::invalid_argument>([&] { name.read_text({.encoding = "ascii"}); },
                                            "ASCII");
    });
}

TEST_CASE("AF2, TX2: a byte order mark is written once, at the beginning, and read over") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "marked";
        std::string const mark = "\xef\xbb\xbf";
        weft::open_options const marked{.encoding = "utf-8-sig"};
        auto const writes = [&](char const* mode, std::string_view text) {
            file out = open_file(name, mode, marked);
            out.write(text);
            out.close();
            return name.read_bytes();
        };
        check(writes("w", "a") == mark + "a", "a new file");
        check(writes("a", "b") == mark + "ab", "not behind what is there");
        file both = open_file(name, "r+", marked);
        check(both.read() == "ab", "not a part of the text");
        both.write("c");
        both.seek(0);
        check(both.read(2) == "ab" && both.readline() == "c", "again");
        both.seek(0);
        both.write("d");
        both.close();
        check(name.read_bytes() == mark + "dbc", "in its place");
        name.write_bytes("");
        check(writes("a", "x") == mark + "x", "an empty file");
        check(name.read_text() == "\ufeffx", "to those who do not know of it a character");
        name.write_text("", {.encoding = "utf-8-sig"});
        check(name.read_bytes() == mark, "also of an empty text");
        name.write_bytes("bare");
        check(open_file(name, "r", marked).read() == "bare", "it may be missing");
        name.write_bytes(mark);
        check(open_file(name, "r", marked).read().empty(), "and be alone");
        name.write_bytes(std::string("\xfe\xff\0a\x20\xac", 6));
        check(open_file(name, "r", {.encoding = "utf-16"}).read() == "a\u20ac", "the other order");
    });
}

TEST_CASE("AF2, PH9: an empty text has its mark where Python has it: write() alone makes one") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "empty";
        for (std::string const encoding :
             {"utf-8-sig", "utf-16", "utf-32", "utf-16-le", "latin-1"}) {
            for (int const buffering : {-1, 1, 16}) {
                weft::open_options const how{.buffering = buffering, .encoding = encoding};
                auto const writes = [&](char const* mode, std::vector<std::string> const& texts) {
                    file out = open_file(name, mode, how);
                    for (std::string const& each : texts)
                        check(out.write(each) == each.size(), encoding);
                    out.close();
                    return name.read_bytes();
                };
                name.write_text("", {.encoding = encoding});
                std::string const mark = name.read_bytes();
                name.write_text("ab", {.encoding = encoding});
                std::string const ab = name.read_bytes();
                check(ab.starts_with(mark) && mark.empty() == (ab.size() <= 4 && ab[0] == 'a'),
                      encoding);
                check(writes("w", {}).empty(), "nothing was written");
                check(writes("a", {"", ""}) == mark, "one mark");
                check(writes("a", {"", "ab"}) == ab, "and no other");
                check(writes("w", {"", "a", "", "b", ""}) == ab, "in front of what follows");
            }
        }
        weft::spooled_temporary_file spooled(
            100, {.mode = "w+", .directory = place / "", .open = {.encoding = "utf-16"}});
        spooled.write("");
        check(spooled.tell() == 2 && !spooled.rolled(), "in memory");
    });
}

TEST_CASE("AF2: a letter that an accent may follow is not lost at the end") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "accents";
        weft::open_options const vietnamese{.encoding = "cp1258"};
        name.write_bytes("no\nma\xec");
        check(name.read_text({.encoding = "cp1258"}) == "no\nm\u00e1", "with its accent");
        name.write_bytes("no\nma");
        check(name.read_text({.encoding = "cp1258"}) == "no\nma", "without one");
        file in = open_file(name, "r", vietnamese);
        check(in.readline() == "no\n" && in.readline() == "ma" && in.readline().empty(), "lines");
        check(in.tell() == 5 && in.seek(3) == 3 && in.read() == "ma", "again");
    });
}

TEST_CASE("AF3: tell() and truncate() work between texts in any encoding, as Python has it") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "cut";
        auto const size = [&] { return std::uint64_t(name.stat().st_size); };
        for (char const* const encoding : {"", "latin-1", "utf-16", "UTF-16LE", "utf-8-sig"}) {
            weft::open_options const how{.encoding = encoding};
            file out = open_file(name, "w", how);
            out.write("one\ntwo\nthree\n");
            check(out.truncate() == size() && out.tell() == size(), encoding);
            out.close();
            std::uint64_t const all = size();
            file both = open_file(name, "r+", how);
            check(both.tell() == 0 && both.seek(0, SEEK_CUR) == 0, encoding);
            check(both.read() == "one\ntwo\nthree\n" && both.tell() == all, encoding);
            both.seek(0);
            both.write("new\n");
            std::uint64_t const rest = both.truncate();
            check(rest < all && rest == both.tell(), encoding);
            both.write("end\n");
            both.close();
            check(name.read_text({.encoding = encoding}) == "new\nend\n", encoding);
            file more = open_file(name, "a+", how);
            check(more.tell() == size(), encoding);
            more.write("more\n");
            check(more.tell() == size(), encoding);
            more.seek(0);
            check(more.readline() == "new\n" && more.truncate(0) == 0 && size() == 0, encoding);
        }
    });
}

TEST_CASE("AF3: seek() goes back to what tell() gave, in any encoding: read again, written over") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "told";
        for (char const* const encoding :
             {"", "latin-1", "utf-16", "UTF-16LE", "utf-32", "utf-32-be", "utf-8-sig", "cp1258",
              "gb18030", "iso-2022-kr", "iso-2022-jp", "utf-7"}) {
            weft::open_options const how{.encoding = encoding};
            file both = open_file(name, "w+", how);
            std::vector<std::uint64_t> told;
            for (char const* const line : {"one\n", "two\n", "six\n"}) {
                told.push_back(both.tell());
                both.write(line);
            }
            std::uint64_t const end = both.tell();
            for (int round = 0; round < 2; ++round) {
                check(both.seek(std::int64_t(told[2])) == told[2] && both.tell() == told[2],
                      encoding);
                check(both.read() == "six\n" && both.tell() == end, encoding);
                check(both.seek(std::int64_t(told[1])) == told[1], encoding);
                check(both.readline() == "two\n" && both.read() == "six\n", encoding);
                both.seek(std::int64_t(end));
                check(both.read().empty(), encoding);
            }
            both.seek(std::int64_t(told[1]));
            both.write("new\n");
            check(both.tell() == told[2] && both.read() == "six\n", "in its place");
            both.seek(std::int64_t(told[0]));
            check(both.read() == "one\nnew\nsix\n", encoding);
            file in = open_file(name, "r", how);
            in.seek(std::int64_t(told[2]));
            check(in.read() == "six\n", "another file of it");
            in.seek(0);
            check(in.readline() == "one\n", encoding);
            if (*encoding) check(is_unsupported([&] { in.tell(); }), encoding);
            check(is_unsupported([&] { in.seek(2, SEEK_CUR); }), "relative");
            check(is_unsupported([&] { in.seek(-2, SEEK_END); }), "relative");
        }
    });
}

TEST_CASE("AF3: what is behind a seek is in the order that the file's byte order mark says") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "swapped";
        std::string const big_endian("\xfe\xff\0a\0b", 6);
        for (bool const has_read : {false, true}) {
            name.write_bytes(big_endian);
            file in = open_file(name, "r+", {.encoding = "utf-16"});
            if (has_read) check(in.read() == "ab", "the other order");
            std::uint64_t const end = in.seek(0, SEEK_END);
            in.seek(std::int64_t(end));
            check(in.read().empty() && in.tell() == end, "nothing more");
            file(open_file(name, "ab")).write(std::string("\x20\xac", 2));
            in.seek(std::int64_t(end));
            check(in.read() == "\u20ac", "what somebody wrote there");
            in.seek(4);
            check(in.read() == "b\u20ac", "from before");
            in.seek(0);
            check(in.read() == "ab\u20ac", "all of it");
        }
        name.write_bytes(std::string("a\0b\0", 4));
        file bare = open_file(name, "r", {.encoding = "utf-16"});
        bare.seek(2);
        check(bare.read() == "b", "none, and our order");
        check(bare.seek(4) == 4 && bare.read().empty(), "at the end");
    });
}

TEST_CASE("AF3: in the middle of a shift there is no position, behind the last line there is one") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "shifted";
        weft::open_options const japanese{.encoding = "iso-2022-jp"};
        std::string octets = "a\x1b$B"; // what is read at once ends between two characters
        for (int i = 0; i < 8190 + 3; ++i)
            octets += "$\"";
        name.write_bytes(octets + "\x1b(B\n");
        file in = open_file(name, "r", japanese);
        check(in.read(8191).size() == 1 + 3 * 8190, "taken");
        check(is_unsupported([&] { in.tell(); }), "a decoder cannot begin there");
        check(in.readline() == "\u3042\u3042\u3042\n", "nothing is lost");
        check(in.tell() == std::uint64_t(name.stat().st_size),
              "behind the last line, though no more was asked for");
    });
}

TEST_CASE("AF3: in the middle of what was read in another encoding there is no position") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "inside";
        weft::open_options const latin{.encoding = "latin-1"};
        std::string const before(20'000, '\xe9');
        for (int const taken : {8192, 1, 10'000}) { // 8192: all that was handed on is taken
            name.write_bytes(before);
            file both = open_file(name, "r+", latin);
            check(both.read(taken).size() == 2 * std::size_t(taken), "taken");
            check(is_unsupported([&] { both.write("X"); }), "write()");
            check(is_unsupported([&] { both.tell(); }), "tell()");
            check(is_unsupported([&] { both.truncate(); }), "truncate()");
            both.read();
            check(both.tell() == 20'000 && both.write("X") == 1, "at the end");
            both.close();
            check(name.read_bytes() == before + "X", "there");
        }
    });
}

TEST_CASE("AF2, TX2: errors in other encodings take nothing that is good, and go on") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "bad";
        weft::open_options const ascii{.encoding = "ascii"};
        name.write_bytes("good\xff");
        file strict = open_file(name, "r", ascii);
        check(strict.read(3) == "goo", "what is good");
        for (int i = 0; i < 2; ++i)
            check_throws<std::invalid_argument>([&] { strict.read(); }, "again and again");
        check(strict.read(1) == "d", "up to the error");
        check_throws<std::invalid_argument>([&] { strict.read(1); }, "the error");
        check_throws<std::invalid_argument>([&] { name.read_text({.encoding = "ascii"}); }, "all");
        name.write_bytes("\xef\xbb\xbf\xff");
        file marked = open_file(name, "r", {.encoding = "utf-8-sig"});
        for (int i = 0; i < 2; ++i)
            check_throws<std::invalid_argument>([&] { marked.read(); }, "behind the mark");
        file out = open_file(name, "w", {.buffering = 1, .encoding = "iso-2022-jp"});
        out.write("\u3042");
        out.flush();
        check_throws<std::invalid_argument>([&] { out.write("\u3042\u20ac\n"); }, "no euro");
        check(name.read_bytes() == "\x1b$B$\"\x1b(B", "complete, and nothing of what was refused");
    });
}

TEST_CASE("AF2, AF3: text that the encoding has not is refused by write() itself, nothing else lost") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "refused";
        for (int const buffering : {-1, 1, 16}) {
            std::string const label = "buffering " + std::to_string(buffering);
            file out = open_file(name, "w", {.buffering = buffering, .encoding = "latin-1"});
            check(out.write("caf\u00e9 ") == 5, label);
            check_throws<std::invalid_argument>([&] { out.write("5 \u20ac"); }, label);
            check(out.write("gratis") == 6, label);
            out.flush();
            check(name.read_bytes() == "caf\xe9 gratis", label);
            check_throws<std::invalid_argument>([&] { out.write("\u20ac"); }, label);
            out.close();
            check(name.read_bytes() == "caf\xe9 gratis", label);
        }
        weft::open_options const lenient{.encoding = "latin-1", .errors = "replace"};
        file out = open_file(name, "w", lenient);
        out.write("5 \u20ac");
        out.close();
        check(name.read_bytes() == "5 ?", "replaced");
    });
}

TEST_CASE("AF2, TX2: an unknown encoding is a lookup_error, and no file is touched") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "named";
        name.write_bytes("text");
        check_throws<weft::lookup_error>([&] { open_file(name, "w", {.encoding = "no such"}); },
                                         "open_file()");
        check_throws<weft::lookup_error>([&] { name.read_text({.encoding = "no such"}); },
                                         "read_text()");
        check_throws<weft::lookup_error>([&] { name.write_text("x", {.encoding = "no such"}); },
                                         "write_text()");
        check(name.read_bytes() == "text", "untouched");
    });
}

TEST_SUITE_END();
