#include <weft/io/path.hpp>

#include "io/scratch.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/io/file.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <unordered_set>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

// What pathlib decides is in path_pathlib_test.cpp; here is what Python 3.11 has not, what C++
// adds, and what cancellation does.

namespace {

using weft::path;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

template <class Range> std::set<std::string> names(Range range) {
    std::set<std::string> found;
    for (path const& each : range)
        check(found.insert(each.as_posix()).second, "each path comes once");
    return found;
}

template <class Call> int error_of(Call call) {
    try {
        call();
    } catch (std::system_error const& failure) {
        return failure.code().value();
    }
    return 0;
}

// Whether the process has a descriptor of it.
bool is_open(std::filesystem::path const& name) {
    std::error_code gone; // some end while they are looked at
    for (auto const& each : std::filesystem::directory_iterator("/proc/self/fd"))
        if (std::filesystem::read_symlink(each.path(), gone) == name) return true;
    return false;
}

using strings = std::set<std::string>;

// Nothing is forbidden to root.
bool become_nobody() {
    constexpr unsigned nobody = 65534;
    return ::geteuid() != 0 ||
           (::setgroups(0, nullptr) == 0 && ::setresgid(nobody, nobody, nobody) == 0 &&
            ::setresuid(nobody, nobody, nobody) == 0);
}

void ask_for_what_is_forbidden() {
    scratch const place;
    path const dark = place / "dark";
    path const file = dark / "file";
    dark.mkdir();
    file.write_bytes("x");
    (dark / "sub").mkdir();
    auto const expect_refused = [](char const* what, path const& name, auto call) {
        std::string text;
        int const error = error_of(call);
        try {
            call();
        } catch (std::system_error const& failure) {
            text = failure.what();
        }
        check(error == EACCES && text.find(name.as_posix()) != std::string::npos,
              std::string(what) + ": " + std::to_string(error) + ", " + text);
    };

    file.chmod(0);
    expect_refused("open", file, [&] { file.open(); });
    expect_refused("open to write", file, [&] { weft::open_file(file, "w"); });
    expect_refused("read_text", file, [&] { file.read_text(); });

    dark.chmod(0500); // to be looked at, not to be changed
    expect_refused("make a file", dark / "new", [&] { (dark / "new").write_bytes("x"); });
    expect_refused("touch", dark / "new", [&] { (dark / "new").touch(); });
    expect_refused("mkdir", dark / "new", [&] { (dark / "new").mkdir({.parents = true}); });
    expect_refused("unlink", file, [&] { file.unlink({.missing_ok = true}); });
    expect_refused("rename", file, [&] { file.rename(place / "moved"); });
    expect_refused("symlink", dark / "new", [&] { (dark / "new").symlink_to("file"); });
    expect_refused("rmdir", dark / "sub", [&] { (dark / "sub").rmdir(); });
    expect_refused("temporary file", dark,
                   [&] { weft::named_temporary_file({.directory = dark}); });
    check(file.exists() && file.is_file(), "nothing has changed");

    dark.chmod(0300); // names that are known may be used
    expect_refused("iterdir", dark, [&] { (void)dark.iterdir().begin(); });
    check(file.exists(), "a name that is known");
    check(names((place / "").glob("dark/*")).empty(), "not listed");
    check(names((place / "").glob("*/file")).size() == 1, "known");

    dark.chmod(0);
    expect_refused("stat", file, [&] { file.stat(); });
    expect_refused("exists", file, [&] { file.exists(); });
    expect_refused("is_dir", file, [&] { file.is_dir(); });
    expect_refused("strict resolve", file, [&] { file.resolve({.strict = true}); });
    std::vector<std::string> told;
    std::size_t walked = 0;
    auto const note = [&told](std::system_error const& error) { told.push_back(error.what()); };
    for (weft::walk_entry const& each : (place / "").walk({.on_error = note}))
        walked += each.directories.size();
    check(walked == 1 && told.size() == 1 && told[0].find("dark") != std::string::npos,
          "walk() tells of it and goes on");
    dark.chmod(0700);
}

weft::test::child_program const forbidden("forbidden", [] {
    if (!become_nobody()) {
        std::puts("not held: the user cannot be changed");
        return;
    }
    weft::run({.workers = 2}, ask_for_what_is_forbidden);
    std::puts("held");
});

} // namespace

TEST_SUITE_BEGIN("io.path");

TEST_CASE("PH1: full_match() matches whole paths, with ** for any number of parts") {
    auto const fits = [](char const* name, char const* pattern) {
        return path(name).full_match(pattern);
    };
    CHECK(fits("a/b.py", "a/*.py"));
    CHECK(!fits("a/b.py", "*.py"));
    CHECK(fits("a/b.py", "**/*.py"));
    CHECK(fits("b.py", "**/*.py"));
    CHECK(fits("/a/b/c.py", "/a/**"));
    CHECK(fits("/a/b/c.py", "/**/c.py"));
    CHECK(fits("/a/b/c.py", "**/c.py"));
    CHECK(fits("a/x/y/b", "a/**/b"));
    CHECK(fits("a/b", "a/**/b"));
    CHECK(fits("a/b", "a/**/**/b"));
    CHECK(!fits("a", "a/**"));
    CHECK(fits("a/b", "a/**"));
    CHECK(fits("/", "/**"));
    CHECK(fits("", "**"));
    CHECK(fits("", ""));
    CHECK(!fits("a", ""));
    CHECK(!fits("/x", "**/x"));
    CHECK(fits("/a/x", "**/x"));
    CHECK(fits("//a", "//a"));
    CHECK(!fits("//a", "/a"));
    CHECK(!fits("a/b", "a*b"));
    CHECK(path("A/B.PY").full_match("**/*.py", {.case_sensitive = false}));
    CHECK(path("\xc3\x84").match("\xc3\xa4", {.case_sensitive = false}));
    CHECK(!path("A").match("a"));
}

TEST_CASE("PH1: a pattern of many stars takes no longer than its parts times those of the path") {
    std::string deep, pattern, stars;
    for (int i = 0; i < 60; ++i) {
        deep += "a/";
        pattern += "**/a/";
        stars += "a*";
    }
    CHECK(!path(deep + "b").full_match(pattern + "c"));
    CHECK(!path(std::string(3000, 'a')).match(stars + "b"));
}

TEST_CASE("PH1: from_uri() takes what as_uri() gives, and refuses other hosts") {
    for (char const* const name : {"/", "//a", "/a b/%/\xff\n", "/\xc3\xa4?#"})
        CHECK(path::from_uri(path(name).as_uri()) == name);
    CHECK(path::from_uri("file:/usr") == "/usr");
    CHECK(path::from_uri("file://localhost/usr") == "/usr");
    CHECK(path::from_uri("file:///a%2fb%2") == "/a/b%2");
    for (char const* const uri :
         {"http:///usr", "usr", "file:usr", "file://elsewhere/usr", "file:"})
        CHECK_THROWS_AS(path::from_uri(uri), std::invalid_argument);
    CHECK_THROWS_AS(path("usr").as_uri(), std::invalid_argument);
}

TEST_CASE("PH11: walk_up goes through ..; an empty stem is refused before a suffix") {
    CHECK(path("/a/b").relative_to("/a/c/d", {.walk_up = true}) == "../../b");
    CHECK(path("a").relative_to("b", {.walk_up = true}) == "../a");
    CHECK(path("/a").relative_to("/a", {.walk_up = true}) == ".");
    CHECK_THROWS_AS(path("/a").relative_to("b", {.walk_up = true}), std::invalid_argument);
    CHECK_THROWS_AS(path("a").relative_to("../b", {.walk_up = true}), std::invalid_argument);
    CHECK_THROWS_AS(path("a.txt").with_stem(""), std::invalid_argument);
    CHECK_THROWS_AS(path("/").with_name("a"), std::invalid_argument);
}

TEST_CASE("PH2, PH3: paths are values: order by parts, hash, std::filesystem::path both ways") {
    CHECK(path("a/b") < path("a-b"));
    CHECK(path("") < path("a"));
    CHECK(path("a", "b", "c") == "a/b/c");
    CHECK(path("a", "/b") == "/b");
    CHECK(path().with_segments("x", path("y")) == "x/y");
    std::filesystem::path const standard = path("a//b/");
    CHECK(standard == "a/b");
    CHECK(path("a/b") == standard);
    CHECK(standard == path("a/b"));
    CHECK(path("a") < standard);
    CHECK(path("x") / standard == "x/a/b");
    CHECK(standard / path("x") == path("a/b/x"));
    CHECK("a" / path("b") == path("a/b"));
    CHECK(std::unordered_set<path>{"a", "a/", "./a"}.size() == 1);
    CHECK(path("/a/b/c").parents()[1] == "/a");
    path joined = "a";
    joined /= joined;
    CHECK(joined == "a/a");
    std::ostringstream out;
    out << path() << path("/x");
    CHECK(out.str() == "./x");
    CHECK(std::string(path::parser) == "posixpath");
}

TEST_CASE("PH2: the limiter of a path is that of every path made of it") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        weft::capacity_limiter one(1);
        path const root = (place / "limited").with_limiter(one);
        root.mkdir({.exist_ok = true});
        auto const expect_kept = [&](path const& made, char const* by) {
            check(made.limiter() == &one, std::string(by) + " keeps the limiter");
        };
        path const name = root / "a.txt";
        expect_kept(name, "operator/");
        expect_kept(path(root, "a", "b"), "joining");
        expect_kept(std::filesystem::path("x") / name, "a foreign path on the left");
        expect_kept(path(name) /= "b", "operator/=");
        expect_kept(root.joinpath("/absolute"), "joinpath()");
        expect_kept(root.with_segments("b"), "with_segments()");
        expect_kept(name.parent(), "parent()");
        expect_kept(name.parents().back(), "parents()");
        expect_kept(name.with_name("b"), "with_name()");
        expect_kept(name.with_stem("b"), "with_stem()");
        expect_kept(name.with_suffix(".b"), "with_suffix()");
        expect_kept(name.relative_to("/"), "relative_to()");
        expect_kept(name.absolute(), "absolute()");
        expect_kept(path("b").with_limiter(one).absolute(), "absolute() of a relative path");
        expect_kept(name.expanduser(), "expanduser()");
        expect_kept(name.resolve(), "resolve()");
        name.touch();
        (root / "link").symlink_to(name);
        expect_kept((root / "link").readlink(), "readlink()");
        (root / "link").unlink();
        expect_kept(name.rename(place / "limited" / "moved"), "rename()");
        expect_kept((root / "moved").replace(place / "limited" / "a.txt"), "replace()");
        for (path const& each : root.iterdir())
            expect_kept(each, "iterdir()");
        for (path const& each : root.glob("*.txt"))
            expect_kept(each, "glob()");
        for (path const& each : root.rglob("a*"))
            expect_kept(each, "rglob()");
        for (weft::walk_entry const& each : root.walk())
            expect_kept(each.directory, "walk()");
        check(root == place / "limited" && std::hash<path>()(root) == std::hash<path>()(root),
              "comparison does not look at it");
        check(path::cwd().limiter() == nullptr, "nobody has it without being given it");
    });
}

TEST_CASE("PH2: the limiter of a path bounds the threads of all its methods") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        weft::capacity_limiter one(1);
        path const root = (place / "bounded").with_limiter(one);
        path const name = root / "file";
        root.mkdir({.exist_ok = true});
        name.write_bytes("x");
        std::function<void()> const calls[] = {
            [&] { name.stat(); },
            [&] { name.exists(); },
            [&] { name.is_file(); },
            [&] { name.is_mount(); },
            [&] { name.owner(); },
            [&] { name.group(); },
            [&] { name.samefile(name); },
            [&] { name.expanduser(); },
            [&] { name.resolve(); },
            [&] { name.absolute(); },
            [&] { name.chmod(0600); },
            [&] { root.mkdir({.exist_ok = true}); },
            [&] { name.touch(); },
            [&] { (root / "none").unlink({.missing_ok = true}); },
            [&] { name.rename(name); },
            [&] { name.open().close(); },
            [&] { name.read_bytes(); },
            [&] { name.read_text(); },
            [&] { name.write_bytes("y"); },
            [&] { name.write_text("z"); },
            [&] { (void)root.iterdir().begin(); },
            [&] { (void)root.glob("*").begin(); },
            [&] { (void)root.walk().begin(); },
        };
        for (std::size_t i = 0; i < std::size(calls); ++i) {
            bool done = false; // written after the body has ended
            weft::with_task_group([&](weft::task_group& group) {
                one.acquire();
                group.start_soon([&] {
                    calls[i]();
                    done = true;
                });
                weft::wait_all_tasks_blocked();
                check(!done && one.statistics().tasks_waiting == 1,
                      "call " + std::to_string(i) + " waits for the token");
                one.release();
            });
        }
    });
}

TEST_CASE("PH4: asking the file system is a cancellation point, and needs a task") {
    CHECK_THROWS_AS(path("x").exists(), weft::no_event_loop_error);
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        auto const refused = [](auto call) {
            weft::cancel_scope scope;
            scope.cancel();
            bool reached = false;
            bool const ran = scope.run([&] {
                call();
                reached = true;
            });
            check(!ran && !reached, "cancelled on entry");
        };
        path const p = place / "made";
        refused([&] { p.exists(); });
        refused([&] { p.mkdir(); });
        refused([&] { p.touch(); });
        refused([&] { p.write_text("x"); });
        refused([&] { p.stat(); });
        refused([&] { p.resolve(); });
        refused([&] { path::cwd(); });
        refused([&] { names(p.iterdir()); });
        refused([&] { names(p.glob("*")); });
        refused([&] {
            for (auto const& each : p.walk())
                check(each.files.empty(), "nothing");
        });
        check(!p.exists(), "nothing was made");
    });
}

// Opening a FIFO blocks in the kernel until there is a writer: a look that lasts as long as it is
// to.
TEST_CASE("PH4: a look is left at once on cancellation, a change is finished first") {
    scratch const place;
    path const fifo = place / "fifo";
    REQUIRE(::mkfifo(fifo.as_posix().c_str(), 0600) == 0);
    run_test({.seeds = {}}, [&] {
        bool read = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::cancel_scope scope;
                weft::with_task_group([&](weft::task_group& inner) {
                    inner.start_soon(
                        [&] { scope.run([&] { read = fifo.read_bytes() == "data"; }); });
                    weft::wait_all_tasks_blocked();
                    scope.cancel();
                    check(!read, "it waits for a writer");
                    check(fifo.write_bytes("data") == 4, "the writer");
                });
                check(read, "what was begun was finished");
            });
        });
    });
}

TEST_CASE(
    "PH5: what is no directory, a loop, dangling or impossible does not exist; others are errors") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        (place / "loop").symlink_to("loop");
        (place / "dangling").symlink_to("nowhere");
        (place / "file").touch();
        for (char const* const name : {"loop", "dangling", "loop/x", "file/x", "none"})
            check(!(place / name).exists() && !(place / name).is_dir(), name);
        check((place / "loop").exists({.follow_symlinks = false}), "the link itself");
        check((place / "dangling").is_symlink(), "a dangling link");
        check(!path(std::string("a\0b", 3)).exists(), "a NUL");
        check_throws<std::invalid_argument>([] { path(std::string("a\0b", 3)).stat(); }, "a NUL");
        check(error_of([&] { (place / std::string(5000, 'x')).exists(); }) == ENAMETOOLONG, "long");
        check(error_of([&] { (place / "loop").stat(); }) == ELOOP, "loop");
        check(error_of([&] { (place / "loop").resolve({.strict = true}); }) == ELOOP, "resolve");
        check(error_of([&] { (place / "none").resolve({.strict = true}); }) == ENOENT, "resolve");
        check((place / "loop").resolve() == place / "loop", "a loop stays");
        for (char const* const name : {"loop", "dangling", "file"})
            (place / name).unlink();
    });
}

TEST_CASE("PH10: links through ever more links are given up like a loop") {
    scratch const place;
    std::ofstream(place.where() / "end");
    std::filesystem::create_symlink("end", place.where() / "0");
    for (int i = 1; i < 2000; ++i)
        std::filesystem::create_symlink(std::to_string(i - 1), place.where() / std::to_string(i));
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        check((place / "100").resolve({.strict = true}) == place / "end", "more than the kernel");
        check(error_of([&] { (place / "1999").resolve({.strict = true}); }) == ELOOP, "too many");
        check((place / "1999").resolve().parent() == place / "", "as far as it goes");
    });
}

TEST_CASE("PH5: an error names the path and what was to be done with it") {
    run_test({.workers = {1}, .seeds = {}}, [] {
        std::string text;
        try {
            path("/no/such/file").stat();
        } catch (std::system_error const& failure) {
            text = failure.what();
        }
        check(text == "cannot stat '/no/such/file': No such file or directory", text);
    });
}

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

TEST_CASE("PH5, PH6, PH7, AF2, NX10: what is forbidden is EACCES with the path in the text") {
    auto const end = weft::test::run_child("forbidden");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("held"));
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

TEST_CASE("PH12: many tasks look users and directories up at once, and HOME counts when it is "
          "asked for") {
    scratch const place;
    std::string const old = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "/";
    run_test({.seeds = {0}}, [&] {
        ::setenv("HOME", "/first", 1);
        check(path("~/x").expanduser() == "/first/x" && path::home() == "/first", "of now");
        ::setenv("HOME", "/second", 1);
        check(path("~/x").expanduser() == "/second/x" && path::home() == "/second", "of then");
        (place / "mine").touch();
        std::string const owner = (place / "mine").owner();
        std::string const group = (place / "mine").group();
        path const home_of_owner = path("~" + owner).expanduser();
        path const here = path::cwd();
        weft::with_task_group([&](weft::task_group& tasks) {
            for (int task = 0; task < 8; ++task)
                tasks.start_soon([&] {
                    for (int round = 0; round < 10; ++round) {
                        check((place / "mine").owner() == owner, "owner");
                        check((place / "mine").group() == group, "group");
                        check(path("~" + owner).expanduser() == home_of_owner, "~user");
                        check(path("").absolute() == here, "cwd");
                        check(path("/bin").owner() == path("/bin").owner(), "another one's");
                    }
                });
        });
    });
    ::setenv("HOME", old.c_str(), 1);
}

TEST_CASE("PH8, PH10: owner and group without an entry are a lookup_error") {
    if (::geteuid() != 0) return; // only root gives files away
    scratch const place;
    std::ofstream(place.where() / "file");
    REQUIRE(::chown((place / "file").as_posix().c_str(), 2'000'000'011, 2'000'000'011) == 0);
    run_test({.seeds = {0}}, [&] {
        check_throws<weft::lookup_error>([&] { (place / "file").owner(); }, "owner");
        check_throws<weft::lookup_error>([&] { (place / "file").group(); }, "group");
    });
}

TEST_CASE("PH8: touch() does not wait for a reader of a FIFO, samefile() takes any path") {
    scratch const place;
    REQUIRE(::mkfifo((place / "fifo").as_posix().c_str(), 0600) == 0);
    run_test({.seeds = {0}}, [&] {
        (place / "fifo").touch();
        check((place / "fifo").samefile(place.where() / "." / "fifo"), "the same");
        check((place / "fifo").is_fifo(), "a FIFO");
        check(error_of([&] { (place / "fifo").samefile(place / "none"); }) == ENOENT, "missing");
        check(!(place / "fifo").is_junction() && !(place / "fifo").is_mount(), "neither");
    });
}

TEST_SUITE_END();
