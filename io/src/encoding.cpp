#include <weft/io/detail/encoding.hpp>

#include <weft/runtime/error.hpp>

#include <array>
#include <bit>
#include <cerrno>
#include <system_error>

#include <iconv.h>

namespace weft::detail {

namespace {

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

std::string without_dashes(std::string name) {
    std::erase(name, '-');
    return name;
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

[[noreturn]] void refuse(std::string_view name) {
    throw lookup_error("unknown encoding: '" + std::string(name) + "'");
}

// None: iconv knows no such name.
::iconv_t open_conversion(std::string const& to, std::string const& from) {
    ::iconv_t const handle = ::iconv_open(to.c_str(), from.c_str());
    if (handle != ::iconv_t(-1)) return handle;
    if (int const error = errno; error != EINVAL)
        throw std::system_error(error, std::system_category(), "iconv_open");
    return nullptr;
}

// iconv knows many names, but not with all of the dashes and underscores that people write.
std::string known_to_iconv(std::string_view name, std::string const& normal) {
    for (std::string const& spelling : {normal, std::string(name), without_dashes(normal)})
        if (::iconv_t const handle = open_conversion("UTF-8", spelling)) {
            ::iconv_close(handle);
            return spelling;
        }
    refuse(name);
}

std::size_t unit_of(std::string const& normal) {
    std::string const name = without_dashes(normal);
    if (name.starts_with("utf16") || name.starts_with("ucs2") || name == "u16") return 2;
    if (name.starts_with("utf32") || name.starts_with("ucs4") || name == "u32") return 4;
    return 1;
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

} // namespace

encoding encoding::parse(std::string_view name) {
    std::string const normal = normalize(name);
    // To iconv an empty name is the locale's, and what follows '/' is a wish of another kind.
    if (normal.empty() || normal.find_first_of(std::string_view("/\0", 2)) != normal.npos)
        refuse(name);
    encoding result{.name = std::string(name), .iconv_name = {}};
    if (is_name_of_utf8(normal)) {
        result.iconv_name = "UTF-8";
        result.is_utf8 = true;
        if (normal == "utf-8-sig") result.mark = "\xef\xbb\xbf";
        return result;
    }
    for (alias const& each : aliases)
        if (each.name == normal) result.iconv_name = each.iconv_name;
    if (result.iconv_name.empty()) result.iconv_name = known_to_iconv(name, normal);
    result.unit = unit_of(normal);
    if (result.iconv_name == "UTF-16" || result.iconv_name == "UTF-32") expect_mark(result);
    return result;
}

encoding::mark_found encoding::take_mark(std::string_view& text, bool is_all) const {
    for (std::string const* const each : {&mark, &swapped_mark}) {
        if (each->empty()) continue;
        if (!is_all && text.size() < each->size() && each->starts_with(text))
            return mark_found::unknown;
        if (!text.starts_with(*each)) continue;
        text.remove_prefix(each->size());
        return each == &mark ? mark_found::own : mark_found::swapped;
    }
    return mark_found::none;
}

converter::converter(encoding const& of, std::string const& to, std::string const& from)
    : handle_(open_conversion(to, from)), to_(to), from_(from) {
    if (handle_ == nullptr) refuse(of.name);
}

void converter::closer::operator()(void* handle) const { ::iconv_close(handle); }

converter::stopped converter::convert(std::string_view& input, std::string& output) {
    char* from = const_cast<char*>(input.data()); // iconv() does not write there
    std::size_t left = input.size();
    for (;;) {
        std::array<char, 4096> space;
        char* to = space.data();
        std::size_t free = space.size();
        std::size_t const result = ::iconv(handle_.get(), &from, &left, &to, &free);
        int const error = errno;
        output.append(space.data(), space.size() - free);
        input = input.substr(input.size() - left);
        if (result != std::size_t(-1)) return stopped::at_end;
        if (error == EINVAL) return stopped::at_incomplete;
        if (error == E2BIG) continue;
        if (keeps_letters()) finish(output);
        return stopped::at_invalid;
    }
}

// iconv does not tell. A letter that is kept says nothing until there is a reset. Encodings with
// shifts have octets that say nothing, too, but after those a reset says nothing either: it is not
// for them, as it would end the shift.
bool converter::keeps_letters() {
    if (keeps_letters_) return *keeps_letters_;
    converter other({.name = from_, .iconv_name = {}}, to_, from_);
    other.keeps_letters_ = keeps_letters_ = false;
    for (int octet = 0; octet < 256 && !*keeps_letters_; ++octet) {
        char const letter = char(octet);
        std::string_view input(&letter, 1);
        std::string at_once;
        bool const accepted = other.convert(input, at_once) == stopped::at_end;
        std::string kept;
        other.finish(kept);
        keeps_letters_ = accepted && at_once.empty() && !kept.empty();
    }
    return *keeps_letters_;
}

void converter::finish(std::string& output) {
    std::array<char, 64> space; // an escape sequence has a few octets
    char* to = space.data();
    std::size_t free = space.size();
    ::iconv(handle_.get(), nullptr, nullptr, &to, &free);
    output.append(space.data(), space.size() - free);
}

} // namespace weft::detail
