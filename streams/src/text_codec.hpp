#pragma once

#include <weft/io/detail/encoding.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace weft::detail {

enum class on_error : unsigned char { strict, replace, ignore };

/// Errors: std::invalid_argument
on_error parse_on_error(std::string_view name);

/// What is at the front of some octets, taken as UTF-8.
struct utf8_unit {
    enum class kind : unsigned char { valid, invalid, incomplete } is;
    std::size_t length; ///< of the character, or of what no character can begin with
};
utf8_unit look_at_utf8(std::string_view octets);
/// How many octets at the front are complete characters.
std::size_t valid_utf8(std::string_view octets);

/// Octets to UTF-8, piece by piece.
class decoder {
public:
    decoder(encoding of, on_error then);

    /// Decodes what was given and what was kept. It stops in front of what is wrong, if that throws
    /// and something comes before it. Errors: unicode_error
    std::string decode(std::string_view octets);
    /// The letter that was kept for an accent that might follow, if there is one: nothing follows.
    std::string finish();
    /// Something was left over that decode({}) might throw about.
    bool has_error() const { return stopped_at_error_; }

private:
    void decode_utf8(std::string_view& input, std::string& output);
    void decode_other(std::string_view& input, std::string& output);
    bool look_for_mark(std::string_view& input);
    std::size_t skip(std::string_view input, std::size_t length, std::string& output);

    encoding encoding_;
    on_error on_error_;
    converter converter_;
    std::string kept_;
    bool at_beginning_ = true;
    bool stopped_at_error_ = false;
};

/// UTF-8 to octets; each piece is complete.
class encoder {
public:
    encoder(encoding of, on_error then);

    /// Errors: unicode_error; it is then as if there had been no call
    std::string encode(std::string_view text);
    /// What encode() gave is on its way.
    void sent() { at_beginning_ = false; }

private:
    void encode_utf8(std::string_view text, std::string& output);
    void encode_other(std::string_view text, std::string& output);
    void substitute(std::string_view& rest, std::size_t place, std::string& output);

    encoding encoding_;
    on_error on_error_;
    converter converter_;
    bool at_beginning_ = true;
};

} // namespace weft::detail
