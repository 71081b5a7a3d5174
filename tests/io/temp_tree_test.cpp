#include "io/src/temp_tree.hpp"

#include "io/file_support.hpp"
#include "io/scratch.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/run.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

// Trees that are removed with few descriptors.

namespace {

using weft::path;
using weft::unique_fd;
using weft::detail::tree_removal;

constexpr int deep = 300; // several times what is open at once

// "d" in "d" in "d", each with a file. Gives the innermost.
unique_fd make_deep(std::string const& root, int depth) {
    unique_fd at(::open(root.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC));
    for (int i = 0; i < depth; ++i) {
        unique_fd(::openat(at.get(), "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        if (::mkdirat(at.get(), "d", 0700) != 0) return {};
        at.reset(::openat(at.get(), "d", O_DIRECTORY | O_RDONLY | O_CLOEXEC));
    }
    return at;
}

void finish(tree_removal& removal) {
    for (int i = 0; !removal.remove_some(64); ++i)
        if (i > 1000) throw weft::test::failure("it does not end");
}

std::errc error_of_removal(tree_removal const& removal) {
    return error_of([&] {
        if (removal.failure()) std::rethrow_exception(removal.failure());
    });
}

void allow_descriptors(rlim_t count) {
    ::rlimit few{};
    ::getrlimit(RLIMIT_NOFILE, &few);
    few.rlim_cur = count;
    ::setrlimit(RLIMIT_NOFILE, &few);
}

// The mount point stays, and what it is in; all else goes.
weft::test::child_program const unremovable("removes around a mount point deep in a tree", [] {
    if ((::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        std::puts("nothing can be mounted here");
        return;
    }
    scratch const place;
    std::string const root = (place / "root").as_posix();
    ::mkdir(root.c_str(), 0700);
    unique_fd innermost = make_deep(root, deep);
    ::mkdirat(innermost.get(), "mounted", 0700);
    std::string const mounted = "/proc/self/fd/" + std::to_string(innermost.get()) + "/mounted";
    if (::mount("tmpfs", mounted.c_str(), "tmpfs", 0, "size=64k") != 0) {
        std::puts("nothing can be mounted here");
        return;
    }
    tree_removal removal((path(root)));
    finish(removal);
    std::printf("busy: %d\n", error_of_removal(removal) == std::errc::device_or_resource_busy);
    ::umount2(mounted.c_str(), MNT_DETACH);
    std::printf("files left: %d\n", ::access((root + "/file").c_str(), F_OK) == 0);
    std::printf("directories left: %d\n", ::access((root + "/d/d/d").c_str(), F_OK) == 0);
    tree_removal again((path(root)));
    finish(again);
    std::printf("gone: %d\n", ::access(root.c_str(), F_OK) != 0);
});

weft::test::child_program const without_descriptors("closes temporary directories without descriptors", [] {
    scratch const place;
    weft::run({.workers = 1}, [&] {
        weft::temporary_directory empty({.directory = place / ""});
        weft::temporary_directory full({.directory = place / ""});
        std::optional<weft::temporary_directory> dropped(
            std::in_place, weft::temporary_directory_options{.directory = place / ""});
        for (auto const* each : {&full, &*dropped})
            (each->name() / "inside").mkdir();
        ::rlimit before{};
        ::getrlimit(RLIMIT_NOFILE, &before);
        allow_descriptors(0);
        auto const close = [](weft::temporary_directory& closed) {
            return error_of([&] { closed.close(); });
        };
        std::errc const none{};
        std::errc const all_used = std::errc::too_many_files_open;
        std::string const name = empty.name().as_posix();
        std::printf("an empty one: %d\n", close(empty) == none && ::access(name.c_str(), F_OK) != 0);
        std::printf("full ones: %d\n", close(full) == all_used && close(*dropped) == all_used);
        ::setrlimit(RLIMIT_NOFILE, &before);
        std::printf("close() again: %d\n", close(full) == none);
        dropped.reset();
        std::printf("all gone: %d\n", std::filesystem::is_empty(place.where()));
    });
});

weft::test::child_program const few_descriptors("removes a deep directory with few descriptors", [] {
    scratch const place;
    weft::run({.workers = 1}, [&] {
        weft::temporary_directory directory({.directory = place / ""});
        std::printf("made: %d\n", bool(make_deep(directory.name().as_posix(), deep)));
        allow_descriptors(100);
        directory.close();
        std::printf("gone: %d\n", std::filesystem::is_empty(place.where()));
    });
});

} // namespace

TEST_SUITE_BEGIN("io.temp_tree");

TEST_CASE("NX10: a temporary directory that close() has no descriptors for is removed later") {
#if defined(__SANITIZE_ADDRESS__)
    MESSAGE("not with UBSan: it looks at objects through a pipe, for which there is no descriptor");
#else
    auto const end = weft::test::run_child("closes temporary directories without descriptors");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("an empty one: 1"));
    CHECK(end.says("full ones: 1"));
    CHECK(end.says("close() again: 1"));
    CHECK(end.says("all gone: 1"));
#endif
}

TEST_CASE("NX10: a temporary directory may be deeper than there are descriptors") {
    auto const end = weft::test::run_child("removes a deep directory with few descriptors");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("made: 1"));
    CHECK(end.says("gone: 1"));
}

TEST_CASE("NX10: what cannot be removed deep in a tree keeps nothing else from being removed, and ends") {
    auto const end = weft::test::run_child("removes around a mount point deep in a tree");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    if (end.says("nothing can be mounted")) {
        MESSAGE("not tried: ", end.output);
        return;
    }
    CHECK(end.says("busy: 1"));
    CHECK(end.says("files left: 0"));
    CHECK(end.says("directories left: 1"));
    CHECK(end.says("gone: 1"));
}

TEST_CASE("NX10: where part of a deep tree is moved away, nothing is removed around its new place") {
    scratch const place;
    std::string const root = (place / "root").as_posix();
    std::string const other = (place / "other").as_posix();
    ::mkdir(root.c_str(), 0700);
    ::mkdir(other.c_str(), 0700);
    std::ofstream(other + "/precious") << "kept";
    unique_fd const innermost = make_deep(root, deep);
    unique_fd const last_file(::openat(innermost.get(), "last", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    tree_removal removal((path(root)));
    struct ::stat status {};
    while (::fstat(last_file.get(), &status) == 0 && status.st_nlink > 0)
        REQUIRE(!removal.remove_some(1));
    REQUIRE(::rename((root + "/d/d").c_str(), (other + "/d").c_str()) == 0);
    finish(removal);
    CHECK(error_of_removal(removal) == std::errc(ESTALE));
    CHECK(std::filesystem::exists(other + "/precious"));
    CHECK(std::filesystem::exists(root));
}

TEST_SUITE_END();
