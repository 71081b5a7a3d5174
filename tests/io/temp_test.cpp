#include <weft/io/temp.hpp>

#include "io/file_support.hpp"
#include "io/scratch.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/io/path.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/error.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/sync/capacity_limiter.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using weft::path;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

std::size_t entries(scratch const& place) {
    std::filesystem::directory_iterator const all(place.where());
    return std::size_t(std::distance(begin(all), end(all)));
}

void expect(bool fact, char const* what) {
    if (fact) return;
    std::printf("does not hold: %s\n", what);
    std::exit(1);
}

// -- A disk of 256 KiB, in a mount name space that is gone with the child
// -----------------------------

constexpr char small_disk[] = "/tmp";
constexpr std::size_t small_disk_size = 262'144;

bool mount_small_disk() {
    if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    return ::mount("tmpfs", small_disk, "tmpfs", 0, "size=256k") == 0;
}

// Every write that was reported is there, in order, once there is room; the one that failed said
// so.
void fill_with_a_file() {
    path const filler = path(small_disk) / "filler";
    path const name = path(small_disk) / "file";
    filler.write_bytes(std::string(100'000, 'f'));
    weft::file out = weft::open_file(name, "wb", {.buffering = 1000});
    std::string const piece(700, 'x');
    std::size_t reported = 0;
    std::errc failure{};
    while (failure == std::errc() && reported < small_disk_size)
        failure = error_of([&] { reported += out.write(piece); });
    expect(failure == std::errc::no_space_on_device, "ENOSPC");
    expect(reported > 100'000, "there was room for some");
    expect(error_of([&] { out.flush(); }) == std::errc::no_space_on_device, "still full");
    filler.unlink();
    out.close();
    expect(name.stat().st_size == ::off_t(reported),
           "what was reported is there, and nothing else");
    name.unlink();
}

// What got through of a write that failed counts for the position.
void fail_to_append() {
    path const filler = path(small_disk) / "filler";
    path const name = path(small_disk) / "log";
    filler.write_bytes(std::string(100'000, 'f'));
    name.write_bytes(std::string(100, 'o'));
    weft::file log = weft::open_file(name, "a+b", {.buffering = 16});
    log.seek(10);
    expect(error_of([&] { log.write(std::string(200'000, 'n')); }) ==
               std::errc::no_space_on_device,
           "ENOSPC: at the end");
    auto const size = std::uint64_t(name.stat().st_size);
    expect(size > 100, "there was room for some of it");
    expect(log.tell() == size && log.seek(60) == 60 && log.read(3) == "ooo", "AF3: at the end");
    log.close();
    filler.unlink();
    name.unlink();
}

// Octets that are no text of their own: what went out before the failure goes out once.
void fill_with_encoded_text() {
    path const filler = path(small_disk) / "filler";
    path const name = path(small_disk) / "text";
    filler.write_bytes(std::string(100'000, 'f'));
    weft::file out = weft::open_file(name, "w", {.buffering = 20'000, .encoding = "UTF-16LE"});
    std::string reported;
    std::errc failure{};
    for (int line = 0; failure == std::errc() && reported.size() < small_disk_size; ++line) {
        std::string const piece = std::to_string(line) + " \xe2\x82\xac\n";
        failure = error_of([&] {
            out.write(piece);
            reported += piece;
        });
    }
    expect(failure == std::errc::no_space_on_device, "ENOSPC: text");
    expect(name.stat().st_size > 40'000, "there was room for some of the text");
    for (int i = 0; i < 3; ++i)
        expect(error_of([&] { out.flush(); }) == std::errc::no_space_on_device, "full for text");
    filler.unlink();
    out.flush();
    out.write("end\n");
    out.close();
    expect(name.read_text({.encoding = "UTF-16LE"}) == reported + "end\n",
           "each line that was reported is there once");
    name.unlink();
}

void fail_to_close() {
    path const filler = path(small_disk) / "filler";
    weft::file out = weft::open_file(path(small_disk) / "file", "w");
    out.write("gathered");
    expect(error_of([&] { filler.write_bytes(std::string(300'000, 'f')); }) ==
               std::errc::no_space_on_device,
           "write_bytes() says so");
    expect(error_of([&] { out.close(); }) == std::errc::no_space_on_device, "close() says so");
    expect(out.closed(), "and it is closed");
    filler.unlink();
    (path(small_disk) / "file").unlink();
}

void spool_to_a_full_disk() {
    path const filler = path(small_disk) / "filler";
    error_of([&] { filler.write_bytes(std::string(300'000, 'f')); });
    weft::spooled_temporary_file spooled(16, {.directory = small_disk});
    spooled.write("sixteen octets !");
    expect(error_of([&] { spooled.write("one too many"); }) == std::errc::no_space_on_device,
           "no room to roll over");
    spooled.seek(0);
    expect(spooled.read() == "sixteen octets !", "what was written is kept in memory");
    filler.unlink();
    spooled.write("more");
    spooled.seek(0);
    expect(spooled.rolled() && spooled.read() == "sixteen octets !more", "and rolls over later");
    spooled.close();
    expect(error_of([&] { weft::named_temporary_file({.directory = small_disk}); }) == std::errc(),
           "room again");
}

void write_to_a_read_only_disk() {
    path const kept = path(small_disk) / "kept";
    kept.write_bytes("x");
    expect(::mount("none", small_disk, nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0, "remount");
    std::errc const refused = std::errc::read_only_file_system;
    path const fresh = path(small_disk) / "new";
    expect(error_of([&] { weft::open_file(kept, "a"); }) == refused, "EROFS: open");
    expect(error_of([&] { fresh.write_bytes("x"); }) == refused, "EROFS: a new file");
    expect(error_of([&] { fresh.mkdir({.parents = true, .exist_ok = true}); }) == refused,
           "EROFS: mkdir");
    expect(error_of([&] { kept.unlink({.missing_ok = true}); }) == refused, "EROFS: unlink");
    expect(error_of([&] { kept.touch(); }) == refused, "EROFS: touch");
    expect(error_of([] { weft::mkdtemp({.directory = small_disk}); }) == refused, "EROFS: mkdtemp");
    expect(error_of([] { weft::temporary_file({.directory = small_disk}); }) == refused,
           "EROFS: a nameless file");
    expect(kept.read_bytes() == "x", "reading goes on");
}

weft::test::child_program const full_disk("full disk", [] {
    if (!mount_small_disk()) {
        std::puts("no small disk can be mounted here");
        return;
    }
    weft::run([] {
        fill_with_a_file();
        fail_to_append();
        fill_with_encoded_text();
        fail_to_close();
        spool_to_a_full_disk();
        write_to_a_read_only_disk();
    });
    std::puts("held");
});

} // namespace

TEST_SUITE_BEGIN("io.temp");

TEST_CASE("AF3, AF4, NX10: a full disk is reported; what was reported as written is there, once") {
    auto const end = weft::test::run_child("full disk");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    if (end.says("no small disk")) {
        MESSAGE("not tried: ", end.output);
        return;
    }
    CHECK(end.says("held"));
}

TEST_CASE("NX10: a nameless file leaves no name, named ones vanish with their object") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const here = place / "";
        {
            weft::file nameless = weft::temporary_file({.directory = here});
            nameless.write("abc");
            nameless.seek(0);
            check(nameless.read() == "abc" && entries(place) == 0, "no name");
            check(nameless.mode() == "w+b", "both ways");
        }
        path name;
        {
            weft::named_temporary_file named(
                {.mode = "w+", .suffix = ".txt", .prefix = "pre", .directory = here});
            name = named.name();
            check(name.name().starts_with("pre") && name.suffix() == ".txt", "as it was told");
            check(name.parent() == here && name.is_absolute(), "there");
            check((name.stat().st_mode & 0777) == 0600, "private");
            named.write("\xc3\xa4");
            weft::named_temporary_file moved = std::move(named);
            moved.flush();
            named.close(); // there is nothing left in it
            check(name.read_text() == "\xc3\xa4", "by its name");
        }
        check(!name.exists(), "by destruction");
        {
            weft::named_temporary_file kept({.directory = here, .delete_on_close = false});
            name = kept.name();
            kept.close();
            check(name.exists(), "after close()");
        }
        check(!name.exists(), "at the end");
        {
            weft::named_temporary_file kept({.directory = here, .delete_file = false});
            name = kept.name();
            kept.close();
        }
        name.unlink();
        weft::named_temporary_file gone({.directory = here});
        gone.name().unlink();
        gone.close(); // somebody was faster
        gone.close();
        check(entries(place) == 0, "nothing is left");
    });
}

TEST_CASE("NX10: what is assigned to ends as if destroyed; moved onto itself it stays as it is") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        auto const expect_ended = [&](auto first, auto second) {
            path const ended = first.name();
            path const kept = second.name();
            auto& itself = first;
            first = std::move(second);
            first = std::move(itself);
            check(!ended.exists() && kept.exists(), "one of them ended");
            check(first.name() == kept && kept.is_absolute(), "it knows its name");
            first.close();
            check(entries(place) == 0, "nothing is left");
        };
        weft::temporary_file_options const how{.directory = place / ""};
        weft::temporary_directory_options const directory{.directory = place / ""};
        expect_ended(weft::named_temporary_file(how), weft::named_temporary_file(how));
        expect_ended(weft::temporary_directory(directory), weft::temporary_directory(directory));
    });
}

TEST_CASE("NX10: a spooled file is in memory until it is too large") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        weft::temporary_file_options const here{.directory = place / ""};
        weft::spooled_temporary_file spooled(8, here);
        unsigned const threads = weft::test::count_threads();
        check(spooled.write("12345678") == 8 && !spooled.rolled(), "it fits");
        check(spooled.seek(-3, SEEK_END) == 5 && spooled.read() == "678", "memory");
        check(spooled.seek(2) == 2 && spooled.write("x") == 1 && spooled.tell() == 3, "in place");
        spooled.seek(0);
        check(spooled.readline() == "12x45678" && spooled.read().empty(), "whole");
        check(weft::test::count_threads() <= threads, "no thread");
        check(error_of([&] { spooled.fileno(); }) == std::errc::operation_not_supported, "no fd");
        check(error_of([&] { spooled.seek(-1); }) == std::errc::invalid_argument, "negative");
        spooled.seek(12);
        spooled.write("!");
        check(spooled.rolled() && spooled.fileno() >= 0, "rolled over");
        spooled.seek(0);
        check(spooled.read() == std::string("12x45678\0\0\0\0!", 13), "the same octets");
        spooled.close();
        check(spooled.closed(), "closed");

        weft::spooled_temporary_file text(0, {.mode = "w+", .directory = place / ""});
        text.write(std::string(100'000, 'x') + "\n\xc3\xa4");
        check(!text.rolled(), "no limit");
        text.rollover();
        text.rollover();
        check(text.rolled(), "by hand");
        text.seek(0);
        check(text.readline().size() == 100'001 && text.read(1) == "\xc3\xa4", "text");
        check(entries(place) == 0, "no name");
    });
}

TEST_CASE("AF3, NX10: a spooled file that cannot become so large says so and keeps what it has") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        weft::spooled_temporary_file spooled(0, {.directory = place / ""});
        spooled.write("abc");
        for (std::uint64_t const size : {std::uint64_t(1) << 63, ~std::uint64_t(0)})
            check(error_of([&] { spooled.truncate(size); }) == std::errc::file_too_large, "truncate()");
        check(!spooled.rolled() && spooled.tell() == 3, "as before");
        spooled.seek(0);
        check(spooled.read() == "abc", "nothing is lost");
    });
}

TEST_CASE("NX10: in memory text in any encoding waits for no thread either") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        for (char const* const encoding : {"", "latin-1", "utf-16", "utf-8-sig"}) {
            weft::capacity_limiter none(0);
            weft::spooled_temporary_file spooled(
                100, {.mode = "w+",
                      .directory = place / "",
                      .open = {.encoding = encoding, .limiter = &none}});
            bool done = false;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    spooled.write("a\n");
                    spooled.write("\xc3\xa4");
                    spooled.seek(0);
                    check(spooled.readline() == "a\n" && spooled.read() == "\xc3\xa4", encoding);
                    done = true;
                });
                weft::wait_all_tasks_blocked();
                group.cancel();
            });
            check(done && !spooled.rolled(), encoding);
            none.set_total_tokens(1);
            spooled.close();
        }
    });
}

TEST_CASE("NX10, TX2: a write that is too much for memory has its byte order mark once") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        for (std::string const first : {"", "a"}) {
            weft::spooled_temporary_file spooled(
                4, {.mode = "w+", .directory = place / "", .open = {.encoding = "utf-16"}});
            spooled.write(first);
            check(!spooled.rolled(), "a mark and a character fit");
            spooled.write("bcd");
            spooled.flush();
            check(spooled.rolled(), "more does not");
            struct ::stat status {};
            ::fstat(spooled.fileno(), &status);
            check(status.st_size == ::off_t(2 + 2 * (first.size() + 3)), "one mark");
            spooled.seek(0);
            check(spooled.read() == first + "bcd", "the same text");
        }
    });
}

TEST_CASE("AF9, NX10: temporary files are made, rolled over and removed in threads of their own limiter") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        weft::capacity_limiter own(1);
        weft::temporary_file_options const how{.directory = place / "", .open = {.limiter = &own}};
        std::optional<weft::file> nameless;
        std::optional<weft::named_temporary_file> named;
        weft::spooled_temporary_file spooled(100, how);
        spooled.write("abc");
        auto const expect_own = [&](char const* what, auto call) {
            bool done = false;
            weft::with_task_group([&](weft::task_group& group) {
                own.acquire();
                group.start_soon([&] {
                    call();
                    done = true;
                });
                weft::wait_all_tasks_blocked();
                check(!done && own.statistics().tasks_waiting == 1, what);
                own.release();
            });
            check(done, what);
        };
        weft::capacity_limiter& general = weft::to_thread::current_default_thread_limiter();
        double const usual = general.total_tokens();
        general.set_total_tokens(0);
        expect_own("temporary_file()", [&] { nameless.emplace(weft::temporary_file(how)); });
        expect_own("named_temporary_file()", [&] { named.emplace(how); });
        expect_own("rollover()", [&] { spooled.rollover(); });
        expect_own("close()", [&] { named->close(); });
        check(spooled.rolled() && !named->name().with_limiter(own).exists(), "done");
        general.set_total_tokens(usual);
    });
}

TEST_CASE("AF8, NX10: whether a file is on disk may be asked while another task writes it there") {
    scratch const place;
    run_test({.workers = {2}, .seeds = {0}, .times = 20}, [&] {
        weft::spooled_temporary_file spooled(10, {.directory = place / ""});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { spooled.write(std::string(100'000, 'x')); });
            while (!spooled.rolled())
                weft::lowlevel::checkpoint();
            struct ::stat status {};
            check(::fstat(spooled.fileno(), &status) == 0, "it is open");
        });
    });
}

TEST_CASE("NX10: a temporary directory vanishes with all that is in it, links are not followed") {
    scratch const place;
    std::ofstream(place.where() / "precious") << "kept";
    run_test({.workers = {1, 2}, .seeds = {0}}, [&] {
        auto const fill = [&](path const& name) {
            (name / "a/b/c").mkdir({.parents = true});
            (name / "a/b/file").write_text("x");
            (name / "a/dark").mkdir();
            (name / "a/dark/file").touch();
            (name / "a/dark").chmod(0);
            (name / "link").symlink_to(place / "");
            (name / "fi\nfo\xff").touch();
        };
        path const here = place / "";
        path name;
        {
            weft::temporary_directory closed({.suffix = ".d", .directory = here});
            name = closed.name();
            check(name.suffix() == ".d" && (name.stat().st_mode & 0777) == 0700, "as it was told");
            fill(name);
            closed.close();
            check(!name.exists(), "close()");
            closed.close();
        }
        {
            weft::temporary_directory destroyed({.directory = here});
            weft::temporary_directory moved = std::move(destroyed);
            name = moved.name();
            fill(name);
        }
        check(!name.exists({.follow_symlinks = false}), "destruction");
        {
            weft::temporary_directory kept({.directory = here, .delete_directory = false});
            name = kept.name();
            kept.close();
        }
        name.rmdir();
        check((place / "precious").read_text() == "kept" && entries(place) == 1, "nothing else");
    });
}

TEST_CASE("NX10: a large directory that is destroyed is gone when run() returns") {
    scratch const place;
    run_test({.workers = {2}, .seeds = {0}}, [&] {
        weft::temporary_directory const large({.directory = place / ""});
        for (int i = 0; i < 500; ++i)
            std::ofstream((large.name() / std::to_string(i)).as_posix());
    });
    CHECK(entries(place) == 0);
}

TEST_CASE("NX10: cancelled wherever it may be, nothing is left behind") {
    scratch const place;
    weft::test::cancel_at_every_suspension_point([&](weft::test::attempt& at) {
        at.run([&] {
            weft::named_temporary_file named({.directory = place / ""});
            named.write("x");
            weft::temporary_directory directory({.directory = place / ""});
            (directory.name() / "inside").write_text("x");
            weft::spooled_temporary_file spooled(1, {.directory = directory.name()});
            spooled.write("too much");
            named.close();
            directory.close();
        });
        check(entries(place) == 0, "nothing");
    });
}

TEST_CASE("NX10: cancelled before, close() removes the name all the same") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        weft::named_temporary_file named({.directory = place / ""});
        weft::temporary_directory directory({.directory = place / ""});
        for (int i = 0; i < 2; ++i) {
            weft::cancel_scope scope;
            scope.cancel();
            check(!scope.run([&] { i == 0 ? named.close() : directory.close(); }), "cancelled");
        }
        check(entries(place) == 0, "and gone");
    });
}

TEST_CASE("NX10: mkstemp() and mkdtemp() make names of their own that nobody else may read") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        std::set<std::string> names;
        for (int i = 0; i < 20; ++i) {
            auto [fd, name] = weft::mkstemp({.directory = place / ""});
            check(fd && names.insert(name.as_posix()).second, "another one");
            check((name.stat().st_mode & 0777) == 0600, "private");
            name.unlink();
        }
        path const made = weft::mkdtemp({.suffix = "s", .prefix = "p", .directory = place / ""});
        check(made.is_dir() && made.name().starts_with("p") && made.name().ends_with("s"), "named");
        made.rmdir();
        check(weft::gettempdir().is_dir() && weft::gettempdir().is_absolute(), "where they go");
        check_throws<std::invalid_argument>([] { weft::mkstemp({.prefix = "a/b"}); }, "a slash");
        check_throws<std::invalid_argument>([] { weft::mkdtemp({.suffix = "../x"}); }, "a slash");
        check_throws<std::invalid_argument>([] { weft::temporary_file({.mode = "q"}); }, "mode");
        check(error_of([&] { weft::mkstemp({.directory = place / "none"}); }) ==
                  std::errc::no_such_file_or_directory,
              "no such directory");
    });
    CHECK_THROWS_WITH_AS(weft::mkdtemp(), doctest::Contains("mkdtemp needs a task"), weft::no_event_loop_error);
    CHECK_THROWS_WITH_AS(weft::named_temporary_file(), doctest::Contains("named_temporary_file needs a task"),
                         weft::no_event_loop_error);
    CHECK_THROWS_WITH_AS(weft::spooled_temporary_file(1), doctest::Contains("spooled_temporary_file needs a task"),
                         weft::no_event_loop_error);
    CHECK_THROWS_WITH_AS(weft::temporary_directory(), doctest::Contains("temporary_directory needs a task"),
                         weft::no_event_loop_error);
    CHECK(entries(place) == 0);
}

TEST_SUITE_END();
