#include "text_codec.hpp"

#include <weft/streams/error.hpp>

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <utility>

namespace weft::detail {

namespace {

constexpr std::string_view replacement = "\xef\xbf\xbd"; // U+FFFD

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

std::string decoder::finish() {
    std::string output;
    if (!encoding_.is_utf8) converter_.finish(output);
    return output;
}

// False: more is needed to know.
bool decoder::look_for_mark(std::string_view& input) {
    if (!at_beginning_) return true;
    encoding::mark_found const found = encoding_.take_mark(input, false);
    if (found == encoding::mark_found::unknown) return false;
    if (found == encoding::mark_found::swapped)
        converter_ = converter(encoding_, "UTF-8", encoding_.swapped_name);
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
