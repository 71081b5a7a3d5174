#include <weft/streams/text.hpp>

#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/stapled.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

TEST_SUITE_BEGIN("streams.text");

namespace {

using namespace std::string_literals;
using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

auto make_pipe(double size = 1000) { return weft::create_memory_object_stream<weft::bytes>(size); }

// What the octets are as text, when they come in pieces of this size.
std::string decode(std::string const& octets, std::string_view encoding, std::string_view errors,
                   std::size_t piece = 1) {
    auto pipe = make_pipe();
    for (std::size_t at = 0; at < octets.size(); at += piece)
        pipe.send.send(octets.substr(at, piece));
    pipe.send.close();
    weft::text_receive_stream reader(pipe.receive, encoding, errors);
    std::string result;
    for (std::string const& part : reader) {
        check(!part.empty(), "never an empty string");
        result += part;
    }
    return result;
}

void expect_decoded(std::string const& octets, std::string_view encoding, std::string_view errors,
                    std::string const& text) {
    for (std::size_t piece : {1, 2, 3, 5, 1000}) {
        std::string const got = decode(octets, encoding, errors, piece);
        check(got == text, std::string(encoding) + " " + std::string(errors) + " in pieces of " +
                               std::to_string(piece) + ": " + got);
    }
}

// What texts are as octets, one send() each.
std::string encode(std::vector<std::string> const& texts, std::string_view encoding,
                   std::string_view errors) {
    auto pipe = make_pipe();
    weft::text_send_stream writer(pipe.send, encoding, errors);
    std::string result;
    for (std::string const& text : texts) {
        writer.send(text);
        result += pipe.receive.receive();
    }
    return result;
}

} // namespace

TEST_CASE("TX1: characters that are cut up come when they are complete") {
    run_test({.workers = {1}}, [] {
        std::string const text = "K\u00e4se \u20ac \U0001f9c0 und Brot";
        expect_decoded(text, "utf-8", "strict", text);
        auto pipe = make_pipe();
        weft::text_receive_stream reader(pipe.receive);
        pipe.send.send("a\xe2\x82");
        check(reader.receive() == "a", "what is complete");
        pipe.send.send("\xac");
        check(reader.receive() == "\u20ac", "then the rest");
    });
}

TEST_CASE("TX1: what is not complete at the end is dropped") {
    run_test({.workers = {1}}, [] {
        for (char const* const errors : {"strict", "replace", "ignore"}) {
            expect_decoded("ab\xe2\x82", "utf-8", errors, "ab");
            expect_decoded("a\0b"s, "utf-16-le", errors, "a");
        }
    });
}

TEST_CASE("TX1: a letter that an accent may follow comes with it, or without at the end") {
    run_test({.workers = {1}}, [] {
        for (char const* const errors : {"strict", "replace", "ignore"}) {
            expect_decoded("ma\xec", "cp1258", errors, "m\u00e1");
            expect_decoded("ma", "cp1258", errors, "ma");
        }
    });
}

TEST_CASE("TX2: encodings by Python's names and by iconv's") {
    run_test({.workers = {1}}, [] {
        expect_decoded("K\xe4se", "latin-1", "strict", "K\u00e4se");
        expect_decoded("K\xe4se", "ISO-8859-1", "strict", "K\u00e4se");
        expect_decoded("\x80", "cp1252", "strict", "\u20ac");
        expect_decoded("\xa4", "iso8859-15", "strict", "\u20ac");
        expect_decoded("plain", "ascii", "strict", "plain");
        expect_decoded("plain", "UTF_8", "strict", "plain");
        expect_decoded("\x1b$B$\"\x1b(B", "iso-2022-jp", "strict", "\u3042");
        expect_decoded("\xef\xbb\xbfx", "utf-8-sig", "strict", "x");
        expect_decoded("\xef\xbb\xbfx", "utf-8", "strict", "\ufeffx");
    });
}

TEST_CASE("TX2: UTF-16 and UTF-32, with and without a byte order mark") {
    run_test({.workers = {1}}, [] {
        std::string const text = "a\u20ac\U0001f9c0";
        std::string const little = "a\0\xac\x20\x3e\xd8\xc0\xdd"s;
        std::string const big = "\0a\x20\xac\xd8\x3e\xdd\xc0"s;
        expect_decoded(little, "utf-16-le", "strict", text);
        expect_decoded(big, "utf-16-be", "strict", text);
        expect_decoded("\xff\xfe" + little, "utf-16", "strict", text);
        expect_decoded("\xfe\xff" + big, "utf-16", "strict", text);
        expect_decoded(little, "utf-16", "strict", text); // this machine's order
        expect_decoded("\0\0\xfe\xff\0\0\x20\xac"s, "utf-32", "strict", "\u20ac");
        expect_decoded("\xff\xfe\0\0\xac\x20\0\0"s, "utf-32", "strict", "\u20ac");
        expect_decoded("\xac\x20\0\0"s, "utf-32-le", "strict", "\u20ac");
    });
}

TEST_CASE("TX2: a byte order mark is sent once, at the beginning") {
    run_test({.workers = {1}}, [] {
        check(encode({"a", "b"}, "utf-16", "strict") == "\xff\xfe"
                                                        "a\0b\0"s,
              "UTF-16");
        check(encode({"a", "b"}, "utf-16-le", "strict") == "a\0b\0"s, "none");
        check(encode({"a", "b"}, "utf-8-sig", "strict") == "\xef\xbb\xbf"
                                                           "ab",
              "UTF-8");
    });
}

TEST_CASE("TX2, X3: the byte order mark of a send() that was cancelled in its course is not sent again") {
    run_test([] {
        weft::memory_network network({.capacity = 3});
        auto [here, there] = network.make_pair();
        weft::text_send_stream writer(here, "utf-16");
        weft::cancel_scope scope;
        scope.cancel();
        scope.run([&] { writer.send("nothing of this"); });
        weft::cancel_scope later;
        std::string got;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { later.run([&] { writer.send("abc"); }); });
            weft::wait_all_tasks_blocked();
            later.cancel();
            weft::wait_all_tasks_blocked();
            group.start_soon([&] {
                writer.send("d");
                writer.close();
            });
            for (weft::bytes const& chunk : there)
                got += chunk;
        });
        check(got == "\xff\xfe"
                     "ad\0"s,
              "one mark, and nothing of what was cancelled before it began");
    });
}

TEST_CASE("TX2: octets that are no text: strict throws behind what is good, and goes on throwing") {
    run_test([] {
        auto pipe = make_pipe();
        weft::text_receive_stream reader(pipe.receive);
        pipe.send.send("good\xff"
                       "bad");
        check(reader.receive() == "good", "what comes before it");
        for (int time = 0; time < 2; ++time) {
            std::string why;
            try {
                reader.receive();
            } catch (weft::unicode_error const& failure) {
                why = failure.what();
            }
            check(why.find("utf-8") != why.npos && why.find("ff") != why.npos,
                  "it names both: " + why);
        }
        reader.close();
        check_throws<weft::closed_resource_error>([&] { reader.receive(); }, "closed wins");
    });
}

TEST_CASE("TX2: replace puts one character for each thing that is wrong, ignore drops it") {
    run_test({.workers = {1}}, [] {
        expect_decoded("a\xff"
                       "b",
                       "utf-8", "replace",
                       "a\ufffd"
                       "b");
        expect_decoded("a\xff"
                       "b",
                       "utf-8", "ignore", "ab");
        expect_decoded("\xe2\x82"
                       "x",
                       "utf-8", "replace", "\ufffdx");                  // cut short
        expect_decoded("\xc0\xaf", "utf-8", "replace", "\ufffd\ufffd"); // too long for '/'
        expect_decoded("\xed\xa0\x80", "utf-8", "replace", "\ufffd\ufffd\ufffd"); // a surrogate
        expect_decoded("\xf4\x90\x80\x80", "utf-8", "replace", "\ufffd\ufffd\ufffd\ufffd");
        expect_decoded("a\x80"
                       "b",
                       "ascii", "replace",
                       "a\ufffd"
                       "b");
        expect_decoded("\x3e\xd8"
                       "a\0"s,
                       "utf-16-le", "replace",
                       "\ufffd"
                       "a"); // half a pair
        expect_decoded("\0\0\x11\0"
                       "a\0\0\0"s,
                       "utf-32-le", "ignore", "a"); // beyond the last one
    });
}

TEST_CASE("TX2: a letter that an accent may follow stays in front of what is no text") {
    run_test({.workers = {1}}, [] {
        expect_decoded("a\x8a"
                       "b",
                       "cp1258", "replace",
                       "a\ufffd"
                       "b");
        expect_decoded("za\x8a\xec", "cp1258", "ignore", "za\u0301");
        expect_decoded("\xe0\xd9", "cp1255", "replace", "\u05d0\ufffd");
        expect_decoded("\x1b$B\xff$\"\x1b(B", "iso-2022-jp", "replace", "\ufffd\u3042");
        for (std::string const& cut : {"za"s, "z"s}) {
            auto pipe = make_pipe();
            weft::text_receive_stream reader(pipe.receive, "cp1258");
            pipe.send.send(cut);
            pipe.send.send("za\x8a"s.substr(cut.size()));
            std::string text;
            while (text.size() < 2)
                text += reader.receive();
            check(text == "za", "what comes before it");
            for (int time = 0; time < 2; ++time)
                check_throws<weft::unicode_error>([&] { reader.receive(); }, "again and again");
        }
    });
}

TEST_CASE("TX2: no such encoding, no such way with errors") {
    auto pipe = make_pipe();
    for (char const* const name : {"no-such-thing", "", "utf-8//TRANSLIT", "utf-16/"}) {
        CHECK_THROWS_AS(weft::text_receive_stream(pipe.receive, name), weft::lookup_error);
        CHECK_THROWS_AS(weft::text_send_stream(pipe.send, name), weft::lookup_error);
    }
    CHECK_THROWS_AS(weft::text_receive_stream(pipe.receive, "utf-8", "lenient"),
                    std::invalid_argument);
}

TEST_CASE("TX3: text that the encoding does not have") {
    run_test([] {
        check(encode({"x\u20acy"}, "latin-1", "replace") == "x?y", "replaced");
        check(encode({"x\u20acy"}, "latin-1", "ignore") == "xy", "ignored");
        check(encode({"x\xffy"}, "utf-8", "replace") == "x?y", "no UTF-8");
        check(encode({"x\xffy"}, "utf-16-be", "ignore") == "\0x\0y"s, "no UTF-8");
        auto pipe = make_pipe();
        weft::text_send_stream writer(pipe.send, "utf-16");
        check_throws<weft::unicode_error>([&] { writer.send("good \xff"); }, "strict");
        check_throws<weft::unicode_error>([&] { writer.send("good \xe2\x82"); }, "cut short");
        check(pipe.send.statistics().current_buffer_used == 0, "nothing was sent");
        writer.send("a");
        check(pipe.receive.receive() == "\xff\xfe"
                                        "a\0"s,
              "as if it had not been");
    });
}

TEST_CASE("TX3: each piece of a stateful encoding stands alone") {
    run_test({.workers = {1}}, [] {
        check(encode({"\u3042", "\u3042"}, "iso-2022-jp", "strict") ==
                  "\x1b$B$\"\x1b(B\x1b$B$\"\x1b(B",
              "back to ASCII at each end");
    });
}

TEST_CASE("TX4: a text stream closes what is under it, and ends one direction") {
    run_test([] {
        auto pipe = make_pipe();
        weft::stapled_byte_stream loop(pipe.send, pipe.receive);
        weft::text_stream both(loop, "latin-1");
        both.send("K\u00e4se");
        both.send_eof();
        check(both.receive() == "K\u00e4se", "there and back");
        check_throws<weft::end_of_stream>([&] { both.receive(); }, "the end");
        both.close();
        both.close();
        check_throws<weft::closed_resource_error>([&] { both.receive(); }, "closed");
        check_throws<weft::closed_resource_error>([&] { loop.receive(); },
                                                  "and so is what is under it");
    });
}

TEST_CASE("TX5: cancelled, nothing is lost, not even a part of a character") {
    unsigned const points = weft::test::cancel_at_every_suspension_point([](auto& at) {
        auto pipe = make_pipe(0);
        weft::text_receive_stream reader(pipe.receive);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (char const* const piece : {"\xe2", "\x82", "\xac", "!"})
                    pipe.send.send(piece);
                pipe.send.close();
            });
            std::string all;
            at.run([&] { all = reader.receive(); });
            for (std::string const& part : reader)
                all += part;
            check(all == "\u20ac!", "all of it: " + all);
        });
    });
    CHECK(points >= 3);
}

TEST_CASE("X6: one task receives at a time") {
    run_test([] {
        auto pipe = make_pipe();
        weft::text_receive_stream reader(pipe.receive);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(reader.receive() == "x", "the first"); });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { reader.receive(); }, "the second");
            pipe.send.send("x");
        });
    });
}
