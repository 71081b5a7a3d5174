#include <weft/streams/file_stream.hpp>

#include "io/scratch.hpp"
#include "support/run_test.hpp"

#include <weft/io/path.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/any_byte_stream.hpp>
#include <weft/streams/error.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace {

using weft::file_read_stream;
using weft::file_write_stream;
using weft::path;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

// The errno of what is nested in a broken_resource_error; 0: none was thrown.
template <class Call> int cause_of_breaking(Call call) {
    try {
        call();
    } catch (weft::broken_resource_error const& broken) {
        try {
            std::rethrow_if_nested(broken);
        } catch (std::system_error const& cause) {
            return cause.code().value();
        }
    }
    return 0;
}

} // namespace

TEST_SUITE_BEGIN("streams.file_stream");

TEST_CASE(
    "FS1: from_path() opens to read, to write anew and to append; its errors are those of open") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "file";
        file_write_stream first = file_write_stream::from_path(name);
        first.send("one");
        first.close();
        file_write_stream more = file_write_stream::from_path(name, true);
        more.send(" two");
        weft::bytes_view const parts[] = {" ", "three"};
        more.send(parts);
        more.send("");
        more.close();
        check(name.read_bytes() == "one two three", "appended");
        file_write_stream::from_path(name).close();
        check(name.read_bytes().empty(), "anew");
        check_throws<std::system_error>([&] { file_read_stream::from_path(place / "none"); },
                                        "none");
        check_throws<std::system_error>([&] { file_write_stream::from_path(place / ""); }, "dir");
        check_throws<std::invalid_argument>([&] { file_read_stream(weft::open_file(name)); },
                                            "text");
        name.unlink();
    });
}

TEST_CASE("FS2: receive() gives up to so many octets, then end_of_stream until there is more") {
    scratch const place;
    std::string const data(200'000, 'x');
    run_test({.seeds = {0}}, [&] {
        path const name = place / "file";
        name.write_bytes(data);
        file_read_stream in = file_read_stream::from_path(name);
        check(in.receive(10).size() == 10, "so many");
        std::size_t total = 10;
        for (weft::bytes const& chunk : in) {
            check(!chunk.empty() && chunk.size() <= 65536, "a chunk");
            total += chunk.size();
        }
        check(total == data.size(), "all of it");
        for (int i = 0; i < 2; ++i)
            check_throws<weft::end_of_stream>([&] { in.receive(); }, "the end");
        file_write_stream more = file_write_stream::from_path(name, true);
        more.send("y");
        more.close();
        check(in.receive() == "y", "what came later");
        check_throws<std::invalid_argument>([&] { in.receive(0); }, "no octets");
        check_throws<std::invalid_argument>([&] { in.receive_some({}); }, "no room");
    });
}

TEST_CASE(
    "FS2: closed is closed_resource_error, a failing system broken_resource_error with its cause") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "file";
        file_write_stream out = file_write_stream::from_path(name);
        out.close();
        out.close();
        check_throws<weft::closed_resource_error>([&] { out.send("x"); }, "send");
        check_throws<weft::closed_resource_error>([&] { out.seek(0); }, "seek");
        file_read_stream in = file_read_stream::from_path(name);
        in.close();
        check_throws<weft::closed_resource_error>([&] { in.receive(); }, "receive");
        file_write_stream full(weft::open_file("/dev/full", "wb"));
        check(cause_of_breaking([&] { full.send("x"); }) == ENOSPC, "ENOSPC");
        file_read_stream memory(weft::open_file("/proc/self/mem", "rb"));
        check(cause_of_breaking([&] { memory.receive(); }) == EIO, "EIO");
        file_read_stream moved = std::move(memory);
        check_throws<weft::closed_resource_error>([&] { memory.receive(); }, "moved from");
    });
}

TEST_CASE("FS3: seek() and tell(); what has no position says ESPIPE itself") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "file";
        file_write_stream out = file_write_stream::from_path(name);
        out.send("warp and weft");
        check(out.tell() == 13 && out.seek(-4, SEEK_END) == 9, "out");
        out.send("WEFT");
        out.close();
        file_read_stream in = file_read_stream::from_path(name);
        check(in.seek(9) == 9 && in.receive() == "WEFT" && in.tell() == 13, "in");
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        file_read_stream pipe(weft::wrap_file(ends[0]));
        file_write_stream other(weft::wrap_file(ends[1]));
        check_throws<std::system_error>([&] { pipe.tell(); }, "tell");
        check_throws<std::system_error>([&] { other.seek(0); }, "seek");
    });
}

TEST_CASE(
    "FS4: attributes lead to the file, its name if it has one, its descriptor if it is real") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "file";
        file_write_stream out = file_write_stream::from_path(name);
        check(out.extra(weft::file_stream_attribute::path) == name, "path");
        weft::file* const file = out.extra(weft::file_stream_attribute::file);
        check(file->fileno() == out.extra(weft::file_stream_attribute::fileno), "the same file");
        file_write_stream const moved = std::move(out);
        check(moved.extra(weft::file_stream_attribute::file) == file, "it stays where it is");
        char space[] = "abc";
        file_read_stream const memory(weft::wrap_file(::fmemopen(space, 3, "r")));
        check(memory.extra(weft::file_stream_attribute::fileno, -7) == -7, "no descriptor");
        check_throws<weft::typed_attribute_lookup_error>(
            [&] { memory.extra(weft::file_stream_attribute::path); }, "no name");
    });
}

TEST_CASE("FS4: a stream that is closed still tells its file and its name, but no descriptor") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "file";
        file_write_stream out = file_write_stream::from_path(name);
        weft::file* const file = out.extra(weft::file_stream_attribute::file);
        out.close();
        check(out.extra(weft::file_stream_attribute::file) == file, "the file");
        check(out.extra(weft::file_stream_attribute::path) == name, "the name");
        check_throws<weft::typed_attribute_lookup_error>(
            [&] { out.extra(weft::file_stream_attribute::fileno); }, "none");
    });
}

TEST_CASE("FS5: cancelled while it waits, a receive is finished and loses nothing") {
    run_test({.seeds = {}}, [] {
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        file_read_stream in(weft::wrap_file(ends[0]));
        file_write_stream out(weft::wrap_file(ends[1]));
        std::string got;
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { got = in.receive(); }); });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            check_throws<weft::busy_resource_error>([&] { in.receive(); }, "X6: a second one");
            out.send("late");
        });
        check(got == "late", "received");
        weft::cancel_scope second;
        second.cancel();
        check(!second.run([&] { out.close(); }), "close() notices it");
        check_throws<weft::end_of_stream>([&] { in.receive(); }, "but has closed");
    });
}

TEST_CASE(
    "FS5: cancelled at every suspension point, what was sent is in the file when it is closed") {
    scratch const place;
    path const name = place / "sent";
    weft::test::cancel_at_every_suspension_point([&](weft::test::attempt& at) {
        std::size_t sent = 0;
        name.unlink({.missing_ok = true});
        file_write_stream out = file_write_stream::from_path(name);
        at.run([&] {
            for (int i = 0; i < 3; ++i) {
                out.send(std::string(50'000, 'x'));
                sent += 50'000;
            }
            out.close();
        });
        out.close();
        check(name.stat().st_size == ::off_t(sent), "neither more nor less");
    });
}

// The suite of byte streams needs another side, which a file is not.
TEST_CASE("M1, X1, R2-R4: file streams keep what byte streams promise, as far as a file can") {
    scratch const place;
    run_test({.seeds = {0}}, [&] {
        path const name = place / "file";
        file_write_stream out = file_write_stream::from_path(name);
        check(!weft::move_on_at(weft::time_point::min(), [&] { out.send("never"); }), "send");
        out.send("kept");
        weft::close_forcefully(out);
        out.close();
        check_throws<weft::closed_resource_error>([&] { out.send("x"); }, "closed");
        file_read_stream in = file_read_stream::from_path(name);
        check(!weft::move_on_at(weft::time_point::min(), [&] { in.receive(); }), "receive");
        check(in.receive() == "kept", "neither lost nor sent although cancelled before");
        std::byte octet;
        for (int time = 0; time < 2; ++time) {
            check(in.receive_some({&octet, 1}) == 0, "the end");
            check_throws<weft::end_of_stream>([&] { in.receive(); }, "the end, each time");
        }
        weft::close_forcefully(in);
        in.close();
        check_throws<weft::closed_resource_error>([&] { in.receive(); }, "closed, not at its end");
        check_throws<weft::closed_resource_error>([&] { in.receive_some({&octet, 1}); }, "both");
        name.unlink();
    });
}

TEST_CASE("X9: file streams are any byte streams") {
    scratch const place;
    run_test({.workers = {1}, .seeds = {0}}, [&] {
        path const name = place / "file";
        weft::any_byte_send_stream out = file_write_stream::from_path(name);
        out.send("held");
        out.close();
        weft::any_byte_receive_stream in = file_read_stream::from_path(name);
        check(in.receive() == "held", "and back");
        check(in.extra(weft::file_stream_attribute::path) == name, "with attributes");
    });
}

TEST_SUITE_END();
