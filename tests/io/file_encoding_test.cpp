#include <weft/io/file.hpp>

#include "io/scratch.hpp"
#include "support/run_test.hpp"

#include <weft/io/path.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

namespace {

using weft::file;
using weft::open_file;
using weft::path;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

} // namespace

TEST_SUITE_BEGIN("io.file_encoding");

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
