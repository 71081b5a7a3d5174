#include <weft/io/readiness.hpp>

#include "scratch.hpp"
#include "support/forked.hpp"

#include <weft/io/file.hpp>
#include <weft/io/path.hpp>
#include <weft/io/resolver.hpp>
#include <weft/io/signals.hpp>
#include <weft/io/temp.hpp>
#if __has_include(<cereal/cereal.hpp>)
#include <weft/io/to_process.hpp>
#endif

#include <doctest/doctest.h>

#include <csignal>
#include <string>

#include <unistd.h>

TEST_SUITE_BEGIN("io.fork");

using weft::test::check;
using weft::test::failures_in_fork;
using weft::test::is_refused;

TEST_CASE("KW1: in a child of fork() descriptors, files, paths and names are refused, and do not hang") {
    scratch const place;
    weft::test::run_test({.seeds = {}}, [&] {
        weft::path const name = place / "file";
        weft::file file = weft::open_file(name, "w+");
        file.write("text");
        auto receiver = weft::open_signal_receiver({SIGUSR1});
        int ends[2];
        check(::pipe(ends) == 0, "a pipe");
        int const failures = failures_in_fork([&] {
            return is_refused([&] { weft::wait_readable(ends[0]); }) +
                   is_refused([&] { weft::wait_writable(ends[1]); }) + is_refused([&] { receiver.receive(); }) +
                   is_refused([&] { weft::open_file(name, "r"); }) + is_refused([&] { file.read(); }) +
                   is_refused([&] { file.write("more"); }) + is_refused([&] { file.flush(); }) +
                   is_refused([&] { name.exists(); }) + is_refused([&] { name.read_text(); }) +
                   is_refused([&] { weft::temporary_file(); }) + is_refused([&] { weft::mkdtemp(); }) +
                   is_refused([] { weft::getaddrinfo("localhost", "80"); });
        });
        ::close(ends[0]);
        ::close(ends[1]);
        file.close();
        check(failures == 0, std::to_string(failures) + " calls were not refused");
        check(name.read_text() == "text", "here all is as before");
    });
}

#if __has_include(<cereal/cereal.hpp>)
TEST_CASE("P1: in a child of fork() worker processes are refused, and do not hang") {
    weft::test::run_test({.seeds = {}}, [] {
        auto const seven = [] { return 7; };
        check(weft::to_process::run_sync(seven) == 7, "one is there");
        int const failures = failures_in_fork([&] {
            return is_refused([&] { weft::to_process::run_sync(seven); }) +
                   is_refused([] { weft::to_process::current_default_process_limiter(); });
        });
        check(failures == 0, std::to_string(failures) + " calls were not refused");
        check(weft::to_process::run_sync(seven) == 7, "here all is as before");
    });
}
#endif

TEST_SUITE_END();
