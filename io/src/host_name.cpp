#include <weft/io/detail/host_name.hpp>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string_view>

#include <idn2.h>

namespace weft::detail {

namespace {

[[noreturn]] void refuse(std::string const& name, char const* why) {
    throw std::invalid_argument("'" + name + "' is not a valid host name: " + why);
}

bool is_host_character(char octet) {
    return (octet >= 'a' && octet <= 'z') || (octet >= 'A' && octet <= 'Z') ||
           (octet >= '0' && octet <= '9') || octet == '-' || octet == '.';
}

struct freed_by_idn2 {
    void operator()(char* text) const { ::idn2_free(text); }
};
using idn2_text = std::unique_ptr<char, freed_by_idn2>;

// RFC 5892 A.3, which libidn2 does not check: between two l and nowhere else.
bool has_stray_middle_dot(std::string_view name) {
    constexpr std::string_view dot = "\xc2\xb7";
    for (auto place = name.find(dot); place != name.npos; place = name.find(dot, place + 1))
        if (place == 0 || name[place - 1] != 'l' || name.substr(place + dot.size(), 1) != "l")
            return true;
    return false;
}

} // namespace

bool is_ascii(std::string const& name) noexcept {
    return std::ranges::all_of(name, [](char octet) { return (octet & 0x80) == 0; });
}

// libidn2 would refuse ASCII names that are in use, such as a--b.example; and its
// IDN2_USE_STD3_ASCII_RULES drops '_' from names without a word (2.3.3), so we look ourselves.
std::string to_ascii_host(std::string const& name) {
    if (is_ascii(name)) return name;
    if (name.find('\0') != std::string::npos) refuse(name, "it contains a NUL");
    char* text = nullptr;
    int status = ::idn2_to_ascii_8z(name.c_str(), &text, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
    if (status != IDN2_OK) refuse(name, ::idn2_strerror(status));
    idn2_text const encoded(text);
    status = ::idn2_to_unicode_8z8z(encoded.get(), &text, 0); // as UTS-46 maps it: an L is an l
    if (status != IDN2_OK) refuse(name, ::idn2_strerror(status));
    idn2_text const mapped(text);
    if (has_stray_middle_dot(mapped.get())) refuse(name, "a middle dot must stand between two l");
    std::string result(encoded.get());
    if (!std::ranges::all_of(result, is_host_character))
        refuse(name, "it has characters that no host name has");
    if (result.empty() || result.front() == '.' || result.find("..") != std::string::npos)
        refuse(name, "it has an empty label");
    return result;
}

} // namespace weft::detail
