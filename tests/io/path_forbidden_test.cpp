#include <weft/io/path.hpp>

#include "io/paths.hpp"
#include "io/scratch.hpp"
#include "support/child_process.hpp"

#include <weft/io/file.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/run.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>
#include <vector>

#include <grp.h>
#include <unistd.h>

namespace {

using weft::path;
using namespace weft::test;

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

child_program const forbidden("forbidden", [] {
    if (!become_nobody()) {
        std::puts("not held: the user cannot be changed");
        return;
    }
    weft::run({.workers = 2}, ask_for_what_is_forbidden);
    std::puts("held");
});

} // namespace

TEST_SUITE_BEGIN("io.path_forbidden");

TEST_CASE("PH5, PH6, PH7, AF2, NX10: what is forbidden is EACCES with the path in the text") {
    auto const end = weft::test::run_child("forbidden");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("held"));
}

TEST_SUITE_END();
