#include <weft/streams/text.hpp>

#include "support/run_test.hpp"

#include <weft/streams/memory.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <random>
#include <string>
#include <string_view>

// Octets by a seed. More of them: WEFT_FUZZ_SEEDS=N in the environment.
TEST_SUITE_BEGIN("streams.text_fuzz");

namespace {

using weft::test::check;

constexpr std::string_view encodings[] = {
    "utf-8",   "utf-8-sig", "utf-16",    "utf-16-le",   "utf-16-be", "utf-32", "utf-32-be",
    "latin-1", "ascii",     "shift_jis", "iso-2022-jp", "gb18030",   "utf-7",  "euc-kr",
    "cp1255",  "cp1258"};

unsigned seeds() {
    char const* const text = std::getenv("WEFT_FUZZ_SEEDS");
    return text == nullptr ? 200 : unsigned(std::strtoul(text, nullptr, 10));
}

// Much of it is nearly text.
std::string make_octets(std::mt19937& random) {
    static constexpr std::string_view parts[] = {"a",
                                                 "\xc3\xa4",
                                                 "\xe2\x82\xac",
                                                 "\xf0\x9f\xa7\x80",
                                                 "\xe2",
                                                 "\x82",
                                                 "\xff\xfe",
                                                 "\xfe\xff",
                                                 std::string_view("\0", 1),
                                                 "\xd8",
                                                 "\xdc",
                                                 "\x1b$B",
                                                 "\x1b(B",
                                                 "$\"",
                                                 "\xed\xa0\x80",
                                                 "+AGE-"};
    std::string result;
    for (unsigned left = random() % 40; left != 0; --left)
        if (random() % 4 == 0)
            result += char(random());
        else
            result += parts[random() % std::size(parts)];
    return result;
}

struct decoded {
    std::string text;
    bool failed = false;
    bool operator==(decoded const&) const = default;
};

decoded decode(std::string const& octets, std::string_view encoding, std::string_view errors,
               std::optional<std::mt19937> pieces) {
    auto pipe = weft::create_memory_object_stream<weft::bytes>(1000);
    for (std::size_t at = 0; at < octets.size();) {
        std::size_t const length = pieces ? 1 + (*pieces)() % 4 : octets.size();
        pipe.send.send(octets.substr(at, length));
        at += length;
    }
    pipe.send.close();
    weft::text_receive_stream reader(pipe.receive, encoding, errors);
    decoded result;
    try {
        for (std::string const& part : reader)
            result.text += part;
    } catch (weft::unicode_error const&) {
        result.failed = true;
    }
    return result;
}

// Everything that was sent; where there are no octets, that is no object.
std::string all_of(weft::memory_object_stream<weft::bytes>& pipe) {
    pipe.send.close();
    std::string all;
    for (weft::bytes const& chunk : pipe.receive)
        all += chunk;
    return all;
}

// What encode() makes of it without a complaint.
bool is_utf8(std::string const& text) {
    auto pipe = weft::create_memory_object_stream<weft::bytes>(1);
    weft::text_send_stream writer(pipe.send);
    try {
        writer.send(text);
    } catch (weft::unicode_error const&) {
        return false;
    }
    return all_of(pipe) == text;
}

void fuzz(unsigned seed) {
    std::mt19937 random(seed);
    std::string const octets = make_octets(random);
    for (std::string_view const encoding : encodings)
        for (std::string_view const errors : {"strict", "replace", "ignore"}) {
            std::string const where = std::string(encoding) + ", " + std::string(errors) +
                                      ", seed " + std::to_string(seed);
            decoded const whole = decode(octets, encoding, errors, std::nullopt);
            decoded const pieces = decode(octets, encoding, errors, random);
            check(whole == pieces, "the same in pieces: " + where);
            check(is_utf8(whole.text), "text: " + where);
            check(errors == "strict" || !whole.failed, "no complaints: " + where);
        }
}

// Back and forth: what an encoding has comes back.
void round_trip(unsigned seed) {
    std::mt19937 random(seed);
    std::string const text = decode(make_octets(random), "utf-8", "ignore", std::nullopt).text;
    for (std::string_view const encoding : {"utf-8", "utf-16", "utf-32-be", "gb18030"}) {
        auto pipe = weft::create_memory_object_stream<weft::bytes>(2);
        weft::text_send_stream writer(pipe.send, encoding);
        writer.send(text);
        writer.send("end");
        decoded const back = decode(all_of(pipe), encoding, "strict", random);
        check(!back.failed && back.text == text + "end",
              std::string(encoding) + ", seed " + std::to_string(seed));
    }
}

// A run each for a few of them: a run has its time.
void with_each_seed(void (*call)(unsigned seed)) {
    constexpr unsigned at_once = 100;
    for (unsigned first = 0; first < seeds(); first += at_once)
        weft::test::run_sim(0, [=] {
            for (unsigned seed = first; seed < std::min(first + at_once, seeds()); ++seed)
                call(seed);
        });
}

} // namespace

TEST_CASE(
    "TX1, TX2: whatever the octets are and however they are cut, the text is the same, and text") {
    with_each_seed(fuzz);
}

TEST_CASE("TX3: what is sent comes back") { with_each_seed(round_trip); }
