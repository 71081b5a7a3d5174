#include <weft/io/path.hpp>

#include "io/paths.hpp"
#include "io/scratch.hpp"

#include <weft/io/file.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/capacity_limiter.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <functional>
#include <iterator>
#include <string>

namespace {

using weft::path;
using namespace weft::test;

} // namespace

TEST_SUITE_BEGIN("io.path_limiter");

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

TEST_SUITE_END();
