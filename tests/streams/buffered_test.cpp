#include <weft/streams/buffered.hpp>

#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/stapled.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

TEST_SUITE_BEGIN("streams.buffered");

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

auto make_pipe(double size = 100) { return weft::create_memory_object_stream<weft::bytes>(size); }

// Gives what it is told to, and notes how much it was asked for.
class recorder final : public weft::byte_receive_stream {
public:
    explicit recorder(std::string content) : content_(std::move(content)) {}
    std::size_t receive_some(weft::buffer target) override {
        asked.push_back(target.size());
        std::size_t const count = std::min({target.size(), content_.size(), most});
        std::memcpy(target.data(), content_.data(), count);
        content_.erase(0, count);
        return count;
    }
    void close() override { closed = true; }

    std::vector<std::size_t> asked;
    std::size_t most = 1'000'000;
    bool closed = false;

private:
    std::string content_;
};

std::size_t resident_memory() {
    std::ifstream statm("/proc/self/statm");
    std::size_t all = 0;
    std::size_t resident = 0;
    statm >> all >> resident;
    return resident * std::size_t(::sysconf(_SC_PAGESIZE));
}

bool is_caused_by_end(weft::incomplete_read const& failure) {
    try {
        std::rethrow_if_nested(failure);
    } catch (weft::end_of_stream const&) {
        return true;
    }
    return false;
}

} // namespace

TEST_CASE("BF1: receive() gives what is in the buffer and leaves the stream alone") {
    run_test([] {
        recorder source("abcdef");
        weft::buffered_byte_receive_stream reader(source);
        reader.feed_data("xyz");
        check(reader.receive(2) == "xy" && reader.receive(9) == "z", "the buffer first");
        check(source.asked.empty(), "the stream was not asked");
        check(reader.receive(4) == "abcd", "then the stream");
        check(source.asked == std::vector<std::size_t>{4}, "for as much as was asked for");
    });
}

TEST_CASE("BF1: of an object what is too much stays in the buffer") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        pipe.send.send("abcdef");
        check(reader.receive(2) == "ab", "a part");
        check(reader.buffer() == "cdef", "the rest");
        pipe.send.send("gh");
        check(reader.receive_exactly(5) == "cdefg", "across objects");
        check(reader.buffer() == "h", "the rest again");
    });
}

TEST_CASE("BF1, M1: receiving from the buffer is a cancellation point, and takes nothing then") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        reader.feed_data("abc;");
        weft::time_point const now = weft::time_point::min();
        check(!weft::move_on_at(now, [&] { reader.receive(); }), "receive");
        check(!weft::move_on_at(now, [&] { reader.receive_exactly(1); }), "receive_exactly");
        check(!weft::move_on_at(now, [&] { reader.receive_until(";", 9); }), "receive_until");
        check(reader.buffer() == "abc;", "everything is there");
    });
}

TEST_CASE("BF2: receive_exactly() asks a byte stream for what is missing, not for more") {
    run_test([] {
        recorder source("abcdefgh");
        source.most = 3;
        weft::buffered_byte_receive_stream reader(source);
        check(reader.receive_exactly(0).empty(), "nothing at once");
        check(reader.receive_exactly(7) == "abcdefg", "exactly");
        check(source.asked == std::vector<std::size_t>{7, 4, 1}, "no more than that");
    });
}

TEST_CASE("BF2: the end before that is an incomplete read, and what came stays in the buffer") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        pipe.send.send("abc");
        pipe.send.close();
        bool caused = false;
        try {
            reader.receive_exactly(4);
        } catch (weft::incomplete_read const& failure) {
            caused = is_caused_by_end(failure);
        }
        check(caused, "the end is the cause");
        check(reader.buffer() == "abc" && reader.receive() == "abc", "nothing is lost");
    });
}

TEST_CASE("BF2: a length that is made up costs no memory in advance") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        pipe.send.send("abc");
        pipe.send.close();
        check_throws<weft::incomplete_read>([&] { reader.receive_exactly(std::size_t(1) << 60); },
                                            "the end");
    });
}

TEST_CASE(
    "BF3: receive_until() drops the delimiter, keeps the rest, and finds one that is cut up") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        for (char const* const piece : {"first\r", "\n\r", "\r\nth", "ird\r\n", "\r\nrest"})
            pipe.send.send(piece);
        check(reader.receive_until("\r\n", 100) == "first", "one cut in two");
        check(reader.receive_until("\r\n", 100) == "\r", "one behind what looks like one");
        check(reader.receive_until("\r\n", 100) == "third", "another");
        check(reader.receive_until("\r\n", 100).empty(), "nothing before it");
        check(reader.receive() == "rest", "the rest");
    });
}

TEST_CASE("BF3: a delimiter of three octets, one octet at a time") {
    run_test([] {
        std::string const text = "ab-a-b--b---c-";
        recorder source(text);
        source.most = 1;
        weft::buffered_byte_receive_stream reader(source);
        check(reader.receive_until("---", 100) == "ab-a-b--b", "found");
        check_throws<weft::incomplete_read>([&] { reader.receive_until("---", 100); }, "the end");
        check(reader.buffer() == "c-", "kept");
    });
}

TEST_CASE("BF3: a delimiter that never comes") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        pipe.send.send("abcd");
        check_throws<weft::delimiter_not_found>([&] { reader.receive_until("\n", 4); }, "too much");
        check(reader.buffer() == "abcd", "kept");
        pipe.send.send("e\nfghij\n");
        check(reader.receive_until("\n", 6) == "abcde", "later it is found");
        check(reader.receive_until("\n", 2) == "fghij",
              "in the buffer already: found beyond the most");
        pipe.send.send("half a line");
        pipe.send.close();
        bool caused = false;
        try {
            reader.receive_until("\n", 100);
        } catch (weft::incomplete_read const& failure) {
            caused = is_caused_by_end(failure);
        }
        check(caused && reader.buffer() == "half a line", "the end; kept");
        check_throws<std::invalid_argument>([&] { reader.receive_until("", 100); }, "no delimiter");
    });
}

TEST_CASE("BF3: into a string of the caller") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        pipe.send.send("one\ntwo\n");
        std::string line = "something else";
        reader.receive_until(line, "\n", 100);
        check(line == "one", "overwritten");
        reader.receive_until(line, "\n", 100);
        check(line == "two", "again");
    });
}

TEST_CASE("BF3: lines of all lengths, sent in pieces of all lengths, by seed") {
    weft::test::explore(20, [] {
        static unsigned seed = 0;
        weft::memory_network network({.seed = ++seed, .largest_piece = 70});
        auto [here, there] = network.make_pair();
        weft::buffered_byte_stream reader(std::move(there));
        weft::with_task_group([&, &sender = here](weft::task_group& group) {
            group.start_soon([&sender] {
                for (std::size_t length = 0; length < 300; ++length)
                    sender.send(std::string(length, 'x') + "<end>");
                sender.send_eof();
            });
            for (std::size_t length = 0; length < 300; ++length)
                check(reader.receive_until("<end>", 1000) == std::string(length, 'x'), "each line");
            check_throws<weft::end_of_stream>([&] { reader.receive(); }, "the end");
        });
    });
}

TEST_CASE("BF4: empty objects are passed over") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        for (char const* const piece : {"", "a", "", "", "b", ""})
            pipe.send.send(piece);
        pipe.send.close();
        check(reader.receive_exactly(2) == "ab", "the rest");
        check_throws<weft::end_of_stream>([&] { reader.receive(); },
                                          "the end, not an endless loop");
    });
}

TEST_CASE("BF4: of a stream of nothing but empty objects one can give up") {
    run_test({.workers = {1, 2}}, [] {
        class nothing final : public weft::object_receive_stream<weft::bytes> {
        public:
            weft::bytes receive() override { return {}; } // and does not wait
            void close() override {}
        } source;
        weft::buffered_byte_receive_stream reader(source);
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon(
                [&] { check(!scope.run([&] { reader.receive_until("\n", 100); }), "cut short"); });
            for (int time = 0; time < 10; ++time)
                weft::lowlevel::checkpoint();
            scope.cancel();
        });
        check(reader.buffer().empty(), "nothing came");
    });
}

TEST_CASE("BF3: of a stream without an end no more is taken than the most, and a chunk") {
    run_test({.workers = {1, 2}}, [] {
        class flood final : public weft::byte_receive_stream {
        public:
            std::size_t receive_some(weft::buffer target) override {
                std::fill(target.begin(), target.end(), std::byte('x'));
                given += target.size();
                return target.size();
            }
            void close() override {}
            std::size_t given = 0;
        } source;
        weft::buffered_byte_receive_stream reader(source);
        for (int time = 0; time < 3; ++time)
            check_throws<weft::delimiter_not_found>([&] { reader.receive_until("\n", 100'000); },
                                                    "it never comes");
        check(source.given < 300'000, std::to_string(source.given) + " octets");
        check(reader.buffer().size() == source.given, "kept");
    });
}

TEST_CASE("BF3: a long line's memory is given back once the buffer is empty") {
    if (weft::test::slowdown > 1) return; // the sanitizers keep what is given back
    class lines final : public weft::byte_receive_stream {
    public:
        std::size_t receive_some(weft::buffer target) override {
            std::size_t const count = std::min(target.size(), longest + 1 - given);
            std::fill_n(target.begin(), count, std::byte('x'));
            given += count;
            if (given > longest) target[count - 1] = std::byte('\n');
            return count;
        }
        void close() override {}
        std::size_t const longest = std::size_t(64) << 20;
        std::size_t given = 0;
    };
    run_test({.workers = {1}, .seeds = {}}, [] {
        for (bool const into_string : {false, true}) {
            lines source;
            weft::buffered_byte_receive_stream reader(source);
            std::size_t const before = resident_memory();
            std::size_t length = 0;
            if (into_string) {
                weft::bytes line;
                reader.receive_until(line, "\n", source.longest + 1);
                length = line.size();
            } else {
                length = reader.receive_until("\n", source.longest + 1).size();
            }
            check(length == source.longest && reader.buffer().empty(), "all of it");
            std::size_t const more = resident_memory() - before;
            check(std::ptrdiff_t(more) < std::ptrdiff_t(source.longest / 2), std::to_string(more) + " octets");
        }
    });
}

TEST_CASE("BF5, BF7: close() closes what is wrapped; the buffer can still be looked at") {
    run_test([] {
        recorder source("abc");
        weft::buffered_byte_receive_stream reader(source);
        reader.feed_data("rest\n");
        reader.close();
        reader.close();
        check(source.closed, "it is closed");
        check_throws<weft::closed_resource_error>([&] { reader.receive(); }, "receive");
        check_throws<weft::closed_resource_error>([&] { reader.receive_exactly(1); }, "exactly");
        check_throws<weft::closed_resource_error>([&] { reader.receive_until("\n", 9); }, "until");
        check(reader.buffer() == "rest\n", "the buffer");
    });
}

TEST_CASE("BF6: cancelled in the middle, everything that came is in the buffer") {
    unsigned const points = weft::test::cancel_at_every_suspension_point([](auto& at) {
        auto pipe = make_pipe(0);
        weft::buffered_byte_receive_stream reader(pipe.receive);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (char const* const piece : {"ab", "cd", "e;", "fgh"})
                    pipe.send.send(piece);
                pipe.send.close();
            });
            std::string got;
            at.run([&] { got = reader.receive_until(";", 100) + ";"; });
            at.cancelled() ? void() : check(got == "abcde;", "found");
            std::string all = got;
            for (weft::bytes const& chunk : reader)
                all += chunk;
            check(all == "abcde;fgh", "nothing is lost: " + all);
        });
    });
    CHECK(points >= 3);
}

TEST_CASE("X6: a second task is turned away, and the first goes on") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(pipe.receive);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(reader.receive_exactly(2) == "ab", "the first"); });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { reader.receive(); }, "the second");
            pipe.send.send("a");
            pipe.send.send("b");
        });
    });
}

TEST_CASE("BF7: what is moved away is closed, what it moved to has the buffer") {
    run_test([] {
        auto pipe = make_pipe();
        weft::buffered_byte_receive_stream reader(std::move(pipe.receive));
        reader.feed_data("kept");
        weft::buffered_byte_receive_stream const moved(std::move(reader));
        check(moved.buffer() == "kept", "it moved along");
        check_throws<weft::closed_resource_error>([&] { reader.receive(); }, "moved from");
        reader.close();
    });
}
