#include "text_codec.hpp"

#include <weft/streams/error.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <system_error>

namespace weft::detail {

namespace {

constexpr std::string_view replacement = "\xef\xbf\xbd"; // U+FFFD
constexpr bool is_little = std::endian::native == std::endian::little;

// Lower case, and '_' is '-': as Python reads names.
std::string normalize(std::string_view name) {
    std::string result(name);
    for (char& letter : result) {
        if (letter == '_') letter = '-';
        if (letter >= 'A' && letter <= 'Z') letter = char(letter - 'A' + 'a');
    }
    return result;
}

struct alias {
    std::string_view name;
    std::string_view iconv_name;
};

// Names of Python's that iconv does not know or takes for something else.
constexpr alias aliases[] = {
    {"ascii", "US-ASCII"},     {"latin-1", "ISO-8859-1"}, {"latin1", "ISO-8859-1"},
    {"latin", "ISO-8859-1"},   {"l1", "ISO-8859-1"},      {"utf-16-le", "UTF-16LE"},
    {"utf-16-be", "UTF-16BE"}, {"utf-32-le", "UTF-32LE"}, {"utf-32-be", "UTF-32BE"},
    {"utf-16le", "UTF-16LE"},  {"utf-16be", "UTF-16BE"},  {"utf-32le", "UTF-32LE"},
    {"utf-32be", "UTF-32BE"},  {"u16", "UTF-16"},         {"u32", "UTF-32"},
    {"utf16", "UTF-16"},       {"utf32", "UTF-32"},       {"utf-16", "UTF-16"},
    {"utf-32", "UTF-32"},
};

bool is_name_of_utf8(std::string_view name) {
    return name == "utf-8" || name == "utf8" || name == "u8" || name == "utf-8-sig";
}

// iconv's UTF-16 and UTF-32 look for a mark in the first call only, however little that one has,
// and put one out after each reset; so we do that ourselves.
void expect_mark(encoding& of) {
    bool const is_16 = of.iconv_name == "UTF-16";
    std::string const little = is_16 ? std::string("\xff\xfe") : std::string("\xff\xfe\0\0", 4);
    std::string const big = is_16 ? std::string("\xfe\xff") : std::string("\0\0\xfe\xff", 4);
    std::string const name = of.iconv_name;
    of.iconv_name = name + (is_little ? "LE" : "BE");
    of.swapped_name = name + (is_little ? "BE" : "LE");
    of.mark = is_little ? little : big;
    of.swapped_mark = is_little ? big : little;
}

std::string describe(std::string_view octets) {
    std::string result;
    for (char const octet : octets.substr(0, 8)) {
        char text[8];
        std::snprintf(text, sizeof text, " %02x", unsigned(static_cast<unsigned char>(octet)));
        result += text;
    }
    return result;
}

[[noreturn]] void refuse_octets(encoding const& of, std::string_view wrong) {
    throw unicode_error("'" + of.name + "' has no character with the octets" + describe(wrong));
}

} // namespace

on_error parse_on_error(std::string_view name) {
    if (name == "strict") return on_error::strict;
    if (name == "replace") return on_error::replace;
    if (name == "ignore") return on_error::ignore;
    throw std::invalid_argument("errors must be 'strict', 'replace' or 'ignore', not '" +
                                std::string(name) + "'");
}

encoding encoding::parse(std::string_view name) {
    std::string const normal = normalize(name);
    // To iconv an empty name is the locale's, and what follows '/' is a wish of another kind.
    if (normal.empty() || normal.find_first_of(std::string_view("/\0", 2)) != normal.npos)
        throw lookup_error("unknown encoding: '" + std::string(name) + "'");
    encoding result{.name = std::string(name), .iconv_name = normal};
    if (is_name_of_utf8(normal)) {
        result.is_utf8 = true;
        if (normal == "utf-8-sig") result.mark = "\xef\xbb\xbf";
        return result;
    }
    for (alias const& each : aliases)
        if (each.name == normal) result.iconv_name = each.iconv_name;
    if (result.iconv_name.starts_with("UTF-16")) result.unit = 2;
    if (result.iconv_name.starts_with("UTF-32")) result.unit = 4;
    if (result.iconv_name == "UTF-16" || result.iconv_name == "UTF-32") expect_mark(result);
    return result;
}

converter::converter(encoding const& of, std::string const& to, std::string const& from)
    : handle_(::iconv_open(to.c_str(), from.c_str())) {
    if (handle_ != none()) return;
    int const error = errno;
    if (error == EINVAL) throw lookup_error("unknown encoding: '" + of.name + "'");
    throw std::system_error(error, std::system_category(), "iconv_open");
}

converter::~converter() {
    if (handle_ != none()) ::iconv_close(handle_);
}

converter::stopped converter::convert(std::string_view& input, std::string& output) {
    char* from = const_cast<char*>(input.data()); // iconv() does not write there
    std::size_t left = input.size();
    for (;;) {
        std::array<char, 4096> space;
        char* to = space.data();
        std::size_t free = space.size();
        std::size_t const result = ::iconv(handle_, &from, &left, &to, &free);
        int const error = errno;
        output.append(space.data(), space.size() - free);
        input = input.substr(input.size() - left);
        if (result != std::size_t(-1)) return stopped::at_end;
        if (error == EINVAL) return stopped::at_incomplete;
        if (error != E2BIG) return stopped::at_invalid;
    }
}

void converter::finish(std::string& output) {
    std::array<char, 64> space; // an escape sequence has a few octets
    char* to = space.data();
    std::size_t free = space.size();
    ::iconv(handle_, nullptr, nullptr, &to, &free);
    output.append(space.data(), space.size() - free);
}

decoder::decoder(encoding of, on_error then) : encoding_(std::move(of)), on_error_(then) {
    if (!encoding_.is_utf8) converter_ = converter(encoding_, "UTF-8", encoding_.iconv_name);
}

std::string decoder::decode(std::string_view octets) {
    stopped_at_error_ = false;
    std::string joined;
    std::string_view input = octets;
    if (!kept_.empty()) {
        joined = std::move(kept_);
        joined += octets;
        input = joined;
    }
    std::string output;
    kept_.assign(input); // should what follows throw
    if (!look_for_mark(input)) return output;
    if (encoding_.is_utf8)
        decode_utf8(input, output);
    else
        decode_other(input, output);
    kept_.assign(input);
    return output;
}

// False: more is needed to know.
bool decoder::look_for_mark(std::string_view& input) {
    if (!at_beginning_) return true;
    for (std::string const* const mark : {&encoding_.mark, &encoding_.swapped_mark}) {
        if (mark->empty()) continue;
        if (input.size() < mark->size() && mark->starts_with(input)) return false;
        if (!input.starts_with(*mark)) continue;
        if (mark == &encoding_.swapped_mark)
            converter_ = converter(encoding_, "UTF-8", encoding_.swapped_name);
        input.remove_prefix(mark->size());
        break;
    }
    at_beginning_ = false;
    return true;
}

void decoder::decode_utf8(std::string_view& input, std::string& output) {
    for (;;) {
        std::size_t const good = valid_utf8(input);
        output.append(input.substr(0, good));
        input.remove_prefix(good);
        if (input.empty()) return;
        utf8_unit const next = look_at_utf8(input);
        if (next.is == utf8_unit::kind::incomplete) return;
        std::size_t const skipped = skip(input, next.length, output);
        if (skipped == 0) return;
        input.remove_prefix(skipped);
    }
}

void decoder::decode_other(std::string_view& input, std::string& output) {
    while (converter_.convert(input, output) == converter::stopped::at_invalid) {
        std::size_t const skipped = skip(input, std::min(encoding_.unit, input.size()), output);
        if (skipped == 0) return;
        input.remove_prefix(skipped);
    }
}

// 0: it throws, but later, as there is good text before it.
std::size_t decoder::skip(std::string_view input, std::size_t length, std::string& output) {
    if (on_error_ == on_error::strict) {
        stopped_at_error_ = true;
        if (output.empty()) {
            kept_.assign(input);
            refuse_octets(encoding_, input.substr(0, length));
        }
        return 0;
    }
    if (on_error_ == on_error::replace) output += replacement;
    return length;
}

encoder::encoder(encoding of, on_error then) : encoding_(std::move(of)), on_error_(then) {
    if (!encoding_.is_utf8) converter_ = converter(encoding_, encoding_.iconv_name, "UTF-8");
}

std::string encoder::encode(std::string_view text) {
    std::string output;
    if (text.empty()) return output;
    if (at_beginning_) output = encoding_.mark;
    if (encoding_.is_utf8)
        encode_utf8(text, output);
    else
        encode_other(text, output);
    return output;
}

void encoder::encode_utf8(std::string_view text, std::string& output) {
    std::string_view rest = text;
    for (;;) {
        std::size_t const good = valid_utf8(rest);
        output.append(rest.substr(0, good));
        rest.remove_prefix(good);
        if (rest.empty()) return;
        substitute(rest, text.size() - rest.size(), output);
    }
}

void encoder::encode_other(std::string_view text, std::string& output) {
    std::string_view rest = text;
    try {
        while (converter_.convert(rest, output) != converter::stopped::at_end)
            substitute(rest, text.size() - rest.size(), output);
    } catch (unicode_error const&) {
        std::string unwanted;
        converter_.finish(unwanted); // the next text begins anew
        throw;
    }
    converter_.finish(output);
}

void encoder::substitute(std::string_view& rest, std::size_t place, std::string& output) {
    utf8_unit const wrong = look_at_utf8(rest);
    if (on_error_ == on_error::strict) {
        std::string_view const what = rest.substr(0, wrong.length);
        throw unicode_error(wrong.is == utf8_unit::kind::valid
                                ? "'" + encoding_.name + "' does not have the character '" +
                                      std::string(what) + "' at octet " + std::to_string(place)
                                : "the text is not UTF-8: octets" + describe(what) + " at " +
                                      std::to_string(place));
    }
    rest.remove_prefix(wrong.length);
    if (on_error_ == on_error::ignore) return;
    std::string_view mark = "?";
    if (encoding_.is_utf8)
        output += mark;
    else
        converter_.convert(mark, output);
}

} // namespace weft::detail
