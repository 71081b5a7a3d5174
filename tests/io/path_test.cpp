#include <weft/io/path.hpp>

#include "io/paths.hpp"
#include "io/scratch.hpp"
#include "support/child_process.hpp"

#include <weft/io/file.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/error.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <unordered_set>

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

// What pathlib decides is in path_pathlib_test.cpp; here is what Python 3.11 has not, what C++
// adds, and what cancellation does.

namespace {

using weft::path;
using namespace weft::test;

void report_look_ups(char const* when) {
    auto const tell = [when](char const* call, auto look) {
        try {
            look();
            std::printf("%s, %s: found\n", when, call);
        } catch (std::system_error const& failure) {
            std::printf("%s, %s: %d %s\n", when, call, failure.code() == std::errc::too_many_files_open,
                        failure.what());
        } catch (std::exception const& other) {
            std::printf("%s, %s: not known, %s\n", when, call, other.what());
        }
    };
    tell("owner()", [] { path("/").owner(); });
    tell("group()", [] { path("/").group(); });
    tell("expanduser()", [] { path("~root/x").expanduser(); });
}

child_program const without_descriptors("looks accounts up without descriptors", [] {
    weft::run({.workers = 1}, [] {
        report_look_ups("before");
        ::rlimit none{};
        ::getrlimit(RLIMIT_NOFILE, &none);
        none.rlim_cur = 0;
        ::setrlimit(RLIMIT_NOFILE, &none);
        report_look_ups("without");
    });
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

TEST_CASE("PH1: a path that is moved onto itself stays as it is") {
    path name = "/a/path/that/is/longer/than/a/short/string";
    path const before = name;
    path& itself = name;
    name = std::move(itself);
    CHECK(name == before);
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

TEST_CASE("PH4: asking the file system is a cancellation point, and needs a task") {
    CHECK_THROWS_WITH_AS(path("x").exists(), doctest::Contains("exists needs a task"), weft::no_event_loop_error);
    CHECK_THROWS_WITH_AS(path("x").is_dir(), doctest::Contains("is_dir needs a task"), weft::no_event_loop_error);
    CHECK_THROWS_WITH_AS(path("x").walk().begin(), doctest::Contains("path::walk needs a task"),
                         weft::no_event_loop_error);
    CHECK_THROWS_WITH_AS(path("x").mkdir(), doctest::Contains("mkdir needs a task"), weft::no_event_loop_error);
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

// Opening a FIFO blocks in the kernel until there is a writer:
// a look that lasts as long as it is to.
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

TEST_CASE("PH10: that a user cannot be looked up is told with its errno, and not that there is none") {
#if defined(__SANITIZE_ADDRESS__)
    MESSAGE("not with UBSan: it looks at objects through a pipe, for which there is no descriptor");
#else
    auto const end = run_child("looks accounts up without descriptors");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("before, expanduser(): found"));
    CHECK(end.says("without, owner(): 1 cannot look up the owner of '/', 0: Too many open files"));
    CHECK(end.says("without, group(): 1 cannot look up the group of '/', 0: Too many open files"));
    CHECK(end.says("without, expanduser(): 1 cannot look up the home directory of '~root': Too many"));
#endif
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
