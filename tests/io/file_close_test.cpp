#include <weft/io/file.hpp>

#include "io/file_support.hpp"
#include "io/scratch.hpp"
#include "support/address_space.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/io/path.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/capacity_limiter.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

// Cancellation, closing, and several tasks at one file.

namespace {

using weft::file;
using weft::open_file;
using weft::path;
using weft::wrap_file;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

weft::test::child_program const closes_without_threads("closes a file without threads", [] {
    scratch const place;
    std::string const name = (place / "written").as_posix();
    weft::run({.workers = 1}, [&] {
        int const fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        file open = wrap_file(fd);
        open.write("all of it");
        weft::test::allow_more_address_space(1 << 20); // no thread's stack fits in there
        try {
            open.close();
            std::puts("no error");
        } catch (std::system_error const& failure) {
            std::puts(failure.what());
        }
        std::printf("closed: %d, descriptor gone: %d\n", open.closed(), ::fcntl(fd, F_GETFD) < 0);
        std::ifstream written(name);
        std::puts(std::string(std::istreambuf_iterator<char>(written), {}).c_str());
    });
});

} // namespace

TEST_SUITE_BEGIN("io.file_close");

TEST_CASE("AF4: destruction writes out what was gathered") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "kept";
        { open_file(name, "w").write("gathered"); }
        check(name.read_bytes() == "gathered", "written");
        file replaced = open_file(name, "w");
        replaced.write("other");
        replaced = open_file(place / "another", "w");
        check(name.read_bytes() == "other", "by assignment, too");
    });
}

TEST_CASE("AF1: cancelled before it begins, nothing happens; afterwards it is finished first") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "cancelled";
        name.unlink({.missing_ok = true});
        weft::cancel_scope scope;
        scope.cancel();
        check(!scope.run([&] { open_file(name, "w"); }) && !name.exists(), "not opened");
        file both = open_file(name, "w+b");
        both.write("abc");
        weft::cancel_scope second;
        second.cancel();
        check(!second.run([&] { both.write("d"); }), "write");
        weft::cancel_scope third;
        third.cancel();
        check(!third.run([&] { both.seek(0); }), "seek");
        check(both.tell() == 3, "as before");
    });
    run_test({.seeds = {}}, [&] {
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        file in = wrap_file(ends[0]);
        file out = wrap_file(ends[1]);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::cancel_scope scope;
                std::string got;
                weft::with_task_group([&](weft::task_group& inner) {
                    inner.start_soon([&] { scope.run([&] { got = in.read(3); }); });
                    weft::wait_all_tasks_blocked();
                    scope.cancel();
                    out.write("xyz");
                });
                check(got == "xyz", "nothing read is lost");
            });
        });
    });
}

TEST_CASE(
    "AF1: cancelled at every suspension point, reading takes nothing and writing loses nothing") {
    scratch const place;
    path const name = place / "points";
    weft::test::cancel_at_every_suspension_point([&](weft::test::attempt& at) {
        name.write_bytes(std::string(200'000, 'x'));
        file both = open_file(name, "r+b");
        std::size_t read = 0;
        std::size_t written = 0;
        at.run([&] {
            read += both.read(150'000).size();
            both.seek(0, SEEK_END);
            written += both.write(std::string(100'000, 'y'));
            both.flush();
            both.seek(read);
            read += both.read().size();
        });
        both.close();
        std::string const now = name.read_bytes();
        check(now.size() == 200'000 + written, "what was written is there");
        check(read == 0 || read == 150'000 || read == 300'000, "all of a call or nothing");
    });
}

TEST_CASE("AF4: close() closes also when it is cancelled, and tells afterwards") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "closed";
        file open = open_file(name, "w");
        open.write("all of it");
        weft::cancel_scope scope;
        scope.cancel();
        check(!scope.run([&] { open.close(); }) && open.closed(), "cancelled and closed");
        check(name.read_bytes() == "all of it", "written out");
        file forced = open_file(name, "a");
        forced.write("!");
        weft::close_forcefully(forced);
        check(forced.closed() && name.read_bytes() == "all of it!", "by force, too");
    });
}

TEST_CASE(
    "AF4: what cannot be written is reported by flush() and close(), and the file is closed") {
    run_test({.seeds = {0}}, [] {
        file full = open_file("/dev/full", "wb");
        check(error_of([&] { full.write("x"); }) == std::errc::no_space_on_device, "write");
        full.close();
    });
}

TEST_CASE("R2, AF4: close() closes also where no thread can be had, and writes out what was gathered") {
    if (weft::test::slowdown > 1) return; // the sanitizers need address space without bounds
    auto const end = weft::test::run_child("closes a file without threads");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("no error"));
    CHECK(end.says("closed: 1, descriptor gone: 1"));
    CHECK(end.says("all of it"));
}

TEST_CASE("AF8: tasks that read one file share it out without tearing a line") {
    scratch const place;
    std::string const text = many_lines(5000);
    run_test({.workers = {1, 4}, .seeds = {0, 1}}, [&] {
        path const name = place / "shared";
        name.write_bytes(text);
        file in = open_file(name);
        file out = open_file(place / "copy", "w");
        std::atomic<std::size_t> octets = 0;
        weft::with_task_group([&](weft::task_group& group) {
            for (int i = 0; i < 8; ++i)
                group.start_soon([&] {
                    for (std::string line; !(line = in.readline()).empty();) {
                        check(line.starts_with("line ") && line.ends_with(" \xc3\xa4\n"), "whole");
                        octets += line.size();
                        out.write(line);
                    }
                });
        });
        out.close();
        check(octets == text.size(), "each once");
        check((place / "copy").stat().st_size == ::off_t(text.size()), "and all written");
    });
}

TEST_CASE("AF9: the limiter that is given bounds the file's threads") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        weft::capacity_limiter one(1);
        file limited = open_file(place / "limited", "wb", {.buffering = 0, .limiter = &one});
        check(limited.write("x") == 1 && limited.limiter() == &one, "through it");
        file const wrapped = wrap_file(limited.fileno(), false, &one);
        check(wrapped.limiter() == &one, "what is wrapped, too");
        bool written = false;
        weft::with_task_group([&](weft::task_group& group) {
            one.acquire();
            group.start_soon([&] {
                limited.write("y");
                written = true;
            });
            weft::wait_all_tasks_blocked();
            check(!written && one.statistics().tasks_waiting == 1, "waits for the token");
            one.release();
        });
        limited.close();
    });
}

TEST_SUITE_END();
