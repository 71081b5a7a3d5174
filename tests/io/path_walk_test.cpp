#include <weft/io/path.hpp>

#include "io/paths.hpp"
#include "io/scratch.hpp"

#include <weft/io/file.hpp>
#include <weft/runtime/lowlevel.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

// Ranges of paths: iterdir(), glob(), rglob() and walk().

namespace {

using weft::path;
using namespace weft::test;
using strings = std::set<std::string>;

// Whether the process has a descriptor of it.
bool is_open(std::filesystem::path const& name) {
    std::error_code gone; // some end while they are looked at
    for (auto const& each : std::filesystem::directory_iterator("/proc/self/fd"))
        if (std::filesystem::read_symlink(each.path(), gone) == name) return true;
    return false;
}

} // namespace

TEST_SUITE_BEGIN("io.path_walk");

TEST_CASE("PH6: names with newlines and octets that are no UTF-8 are names as others") {
    scratch const place;
    strings const wanted{"a\nb", "\xff\xfe", "\xc3\xa4", "*", "[", " "};
    for (std::string const& name : wanted)
        std::ofstream(place.where() / name) << name;
    run_test({.seeds = {0}}, [&] {
        path const base = place / "";
        strings found;
        for (path const& each : base.iterdir()) {
            found.insert(each.name());
            check(each.read_bytes() == each.name(), "each is found by its name");
        }
        check(found == wanted, "all of them");
        check(names(base.glob("?")).size() == 4, "one character each: ä, *, [, a blank");
        check(names(base.glob("??")).size() == 1, "two octets that are no UTF-8");
        check(names(base.glob("[[]")) == strings{(base / "[").as_posix()}, "escaped");
        check(names(base.rglob("a?b")) == strings{(base / "a\nb").as_posix()}, "newline");
    });
}

TEST_CASE("PH6: a missing directory is an error of the first step; patterns are looked at before") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const none = place / "none";
        auto range = none.iterdir(); // asks nobody yet
        check(error_of([&] { range.begin(); }) == ENOENT, "ENOENT");
        check_throws<std::logic_error>([&] { range.begin(); }, "a range that failed");
        check(names(none.glob("**/*")).empty(), "nothing fits there");
        for (char const* const pattern : {"", "/", "/abs", "."})
            check_throws<std::invalid_argument>([&] { none.glob(pattern); }, pattern);
        check_throws<std::invalid_argument>([&] { none.rglob("/abs"); }, "absolute");
    });
}

TEST_CASE("PH6: ** finds each path once, files, too, and goes through links when told so") {
    scratch const place;
    std::filesystem::create_directories(place.where() / "a/b/c");
    std::ofstream(place.where() / "a/b/file");
    std::filesystem::create_directory_symlink("b", place.where() / "a/link");
    std::filesystem::create_symlink("nowhere", place.where() / "dangling");
    run_test({.seeds = {0}}, [&] {
        path const base = place / "";
        auto const below = [&](char const* pattern, weft::glob_options const& how = {}) {
            strings result;
            for (std::string const& each : names(base.glob(pattern, how)))
                result.insert(path(each).relative_to(base).as_posix());
            return result;
        };
        check(below("**") == strings{".", "a", "a/b", "a/b/c", "a/b/file", "a/link", "dangling"},
              "**");
        check(below("**/") == strings{".", "a", "a/b", "a/b/c"}, "directories");
        check(below("**/**/c/**") == strings{"a/b/c"}, "several");
        check(below("**/c") == strings{"a/b/c"}, "not through the link");
        check(below("**/c", {.recurse_symlinks = true}) == strings{"a/b/c", "a/link/c"}, "through");
        check(below("*/link/c") == strings{"a/link/c"}, "a link that is named");
        check(below("dangling") == strings{"dangling"}, "a link is there although it dangles");
        check(below("dangling/").empty(), "but no directory");
        check(below("A/B/FILE", {.case_sensitive = false}) == strings{"a/b/file"}, "case");
        check(below("*/b/../link") == strings{"a/b/../link"}, "..");
    });
}

TEST_CASE("PH6: a large directory is listed completely, and a loop may end before it has") {
    scratch const place;
    for (int i = 0; i < 1000; ++i)
        std::ofstream(place.where() / std::to_string(i));
    run_test({.workers = {2}, .seeds = {0}}, [&] {
        check(names((place / "").iterdir()).size() == 1000, "all");
        check(names((place / "").glob("*9")).size() == 100, "those with a 9 at the end");
        int count = 0;
        for (path const& each : (place / "").iterdir()) {
            check(!each.name().empty(), "a name");
            if (++count == 10) break;
        }
    });
}

TEST_CASE("PH6, PH7: a range that was moved from is empty") {
    scratch const place;
    std::ofstream(place.where() / "file");
    run_test({.seeds = {0}}, [&] {
        path const base = place / "";
        auto listing = base.iterdir();
        auto walk = base.walk();
        auto listed = std::move(listing);
        auto walked = std::move(walk);
        check(listing.begin() == listing.end() && walk.begin() == walk.end(), "nothing is left");
        check(listed.begin() != listed.end() && walked.begin() != walked.end(), "it went there");
    });
}

TEST_CASE("PH6: cancelled at every step, a range leaves no descriptor and refuses to go on") {
    scratch const place;
    for (int i = 0; i < 600; ++i)
        std::ofstream(place.where() / std::to_string(i));
    weft::test::cancel_at_every_suspension_point([&](weft::test::attempt& at) {
        std::size_t count = 0;
        bool complete = false;
        {
            auto range = (place / "").iterdir();
            complete = at.run([&] {
                for (path const& each : range)
                    count += each.as_posix().empty() ? 0 : 1;
            });
            if (!complete && at.cancelled() && count % 256 == 0 && count < 512)
                check_throws<std::logic_error>([&] { range.begin(); }, "it does not go on");
        }
        while (is_open(place.where())) // until the thread that was left alone is done
            weft::lowlevel::checkpoint();
        check(complete ? count == 600 : count % 256 == 0 || count == 600, "whole batches");
    });
}

TEST_CASE(
    "PH7: a walk is pruned by erasing, tells of what it cannot read, and has two directions") {
    scratch const place;
    std::filesystem::create_directories(place.where() / "a/b");
    std::filesystem::create_directories(place.where() / "c/d");
    std::filesystem::create_directory_symlink("c", place.where() / "link");
    run_test({.seeds = {0}}, [&] {
        path const base = place / "";
        std::vector<std::string> seen;
        for (auto& [directory, directories, files] : base.walk()) {
            std::ranges::sort(directories);
            std::erase(directories, "a");
            seen.push_back(directory.relative_to(base).as_posix());
        }
        check(seen == std::vector<std::string>{".", "c", "c/d"}, "pruned");
        seen.clear();
        for (auto const& each : base.walk({.top_down = false}))
            seen.push_back(each.directory.relative_to(base).as_posix());
        check(seen.size() == 5 && seen.back() == ".", "the bottom first");
        check(std::ranges::find(seen, "c/d") < std::ranges::find(seen, "c"), "children first");
        seen.clear();
        for (auto const& each : base.walk({.follow_symlinks = true}))
            seen.push_back(each.directory.relative_to(base).as_posix());
        check(std::ranges::count(seen, "link/d") == 1, "through the link");
        int told = 0;
        for (auto const& each :
             (base / "none").walk({.on_error = [&](std::system_error const& error) {
                 told += error.code().value() == ENOENT ? 1 : 0;
             }}))
            check(each.files.empty(), "nothing there");
        check(told == 1, "told");
        check_throws<std::domain_error>(
            [&] {
                auto range = (base / "none").walk({.on_error = [](auto const&) {
                    throw std::domain_error("stop");
                }});
                range.begin();
            },
            "what on_error throws");
    });
}

TEST_CASE("PH7: cancelled at every step, a walk goes on where it was") {
    scratch const place;
    std::filesystem::create_directories(place.where() / "a/b/c/d");
    weft::test::cancel_at_every_suspension_point([&](weft::test::attempt& at) {
        auto range = (place / "").walk();
        std::set<std::string> seen;
        auto const go = [&] {
            for (auto const& each : range)
                check(seen.insert(each.directory.as_posix()).second, "each once");
        };
        if (!at.run(go)) go();
        check(seen.size() == 5, "all of them");
    });
}

TEST_SUITE_END();
