#include "utf8.hpp"

#include <cstdint>
#include <cstring>

namespace weft::detail {

namespace {

// The lead octet says how many follow and what the first of them may be (Unicode, table 3-7).
struct lead {
    std::size_t length = 0; // 0: no character begins so
    unsigned char least = 0x80;
    unsigned char most = 0xBF;
};

lead lead_of(unsigned char octet) {
    if (octet < 0xC2 || octet > 0xF4) return {};
    if (octet < 0xE0) return {2};
    if (octet == 0xE0) return {3, 0xA0};
    if (octet == 0xED) return {3, 0x80, 0x9F};
    if (octet < 0xF0) return {3};
    if (octet == 0xF0) return {4, 0x90};
    if (octet == 0xF4) return {4, 0x80, 0x8F};
    return {4};
}

} // namespace

utf8_character first_utf8_character(std::string_view text) {
    auto const octet = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    if (octet(0) < 0x80) return {true, false, 1, octet(0)};
    lead const first = lead_of(octet(0));
    if (first.length == 0) return {};
    char32_t code = octet(0) & (0x7Fu >> first.length);
    for (std::size_t i = 1; i < first.length; ++i) {
        if (i == text.size()) return {false, true, i};
        unsigned char const least = i == 1 ? first.least : 0x80;
        unsigned char const most = i == 1 ? first.most : 0xBF;
        if (octet(i) < least || octet(i) > most) return {false, false, i};
        code = (code << 6) | (octet(i) & 0x3Fu);
    }
    return {true, false, first.length, code};
}

std::size_t leading_ascii(std::string_view text) {
    std::size_t at = 0;
    for (std::uint64_t eight; at + sizeof eight <= text.size(); at += sizeof eight) {
        std::memcpy(&eight, text.data() + at, sizeof eight);
        if ((eight & 0x8080808080808080u) != 0) break;
    }
    while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80)
        ++at;
    return at;
}

} // namespace weft::detail
