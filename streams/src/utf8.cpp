#include "text_codec.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace weft::detail {

namespace {

bool is_between(unsigned char octet, unsigned char least, unsigned char most) {
    return octet >= least && octet <= most;
}

// Of the Unicode standard, table 3-7: how long a character is, and what its second octet may be.
struct expectation {
    std::size_t length; // 0: no character begins so
    unsigned char least = 0x80;
    unsigned char most = 0xbf;
};

expectation expect_after(unsigned char first) {
    if (first < 0x80) return {1};
    if (is_between(first, 0xc2, 0xdf)) return {2};
    if (first == 0xe0) return {3, 0xa0};
    if (first == 0xed) return {3, 0x80, 0x9f}; // no surrogates
    if (is_between(first, 0xe1, 0xef)) return {3};
    if (first == 0xf0) return {4, 0x90};
    if (is_between(first, 0xf1, 0xf3)) return {4};
    if (first == 0xf4) return {4, 0x80, 0x8f};
    return {0};
}

std::size_t ascii_prefix(std::string_view octets) {
    std::size_t place = 0;
    for (std::uint64_t eight; place + sizeof eight <= octets.size(); place += sizeof eight) {
        std::memcpy(&eight, octets.data() + place, sizeof eight);
        if ((eight & 0x8080808080808080) != 0) break;
    }
    while (place < octets.size() && (octets[place] & 0x80) == 0)
        ++place;
    return place;
}

} // namespace

// What is wrong is as long as a character could have begun, so that it becomes one U+FFFD (the
// Unicode standard, 3.9, "maximal subpart").
utf8_unit look_at_utf8(std::string_view octets) {
    auto const at = [octets](std::size_t place) {
        return static_cast<unsigned char>(octets[place]);
    };
    expectation const expected = expect_after(at(0));
    if (expected.length == 0) return {utf8_unit::kind::invalid, 1};
    for (std::size_t place = 1; place < expected.length; ++place) {
        if (place == octets.size()) return {utf8_unit::kind::incomplete, place};
        unsigned char const least = place == 1 ? expected.least : 0x80;
        unsigned char const most = place == 1 ? expected.most : 0xbf;
        if (!is_between(at(place), least, most)) return {utf8_unit::kind::invalid, place};
    }
    return {utf8_unit::kind::valid, expected.length};
}

std::size_t valid_utf8(std::string_view octets) {
    std::size_t place = 0;
    for (;;) {
        place += ascii_prefix(octets.substr(place));
        if (place == octets.size()) return place;
        utf8_unit const next = look_at_utf8(octets.substr(place));
        if (next.is != utf8_unit::kind::valid) return place;
        place += next.length;
    }
}

} // namespace weft::detail
