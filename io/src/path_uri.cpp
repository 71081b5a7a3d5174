#include <weft/io/path.hpp>

#include <stdexcept>

namespace weft {

namespace {

constexpr std::string_view scheme = "file:";

[[noreturn]] void refuse(std::string_view uri, char const* why) {
    throw std::invalid_argument("'" + std::string(uri) + "' " + why);
}

// Unreserved characters (RFC 3986) and the slash stand for themselves.
bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("/_.-~").find(c) != std::string_view::npos;
}

int hexadecimal(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// A percent sign without two digits stands for itself.
std::string decode(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        bool const encoded = text[i] == '%' && i + 2 < text.size() &&
                             hexadecimal(text[i + 1]) >= 0 && hexadecimal(text[i + 2]) >= 0;
        result +=
            encoded ? char(hexadecimal(text[i + 1]) * 16 + hexadecimal(text[i + 2])) : text[i];
        if (encoded) i += 2;
    }
    return result;
}

} // namespace

std::string path::as_uri() const {
    if (!is_absolute()) refuse(text(), "is relative and cannot be a file URI");
    constexpr char digits[] = "0123456789ABCDEF";
    std::string result = "file://";
    for (char const c : text_) {
        auto const octet = static_cast<unsigned char>(c);
        if (is_plain(c))
            result += c;
        else
            result += {'%', digits[octet / 16], digits[octet % 16]};
    }
    return result;
}

path path::from_uri(std::string_view uri) {
    if (!uri.starts_with(scheme)) refuse(uri, "does not start with 'file:'");
    std::string_view rest = uri.substr(scheme.size());
    if (rest.starts_with("//")) {
        rest.remove_prefix(2);
        std::string_view const host = rest.substr(0, rest.find('/'));
        if (!host.empty() && host != "localhost") refuse(uri, "names a file of another host");
        rest.remove_prefix(host.size());
    }
    path const result = decode(rest);
    if (!result.is_absolute()) refuse(uri, "is not absolute");
    return result;
}

} // namespace weft
