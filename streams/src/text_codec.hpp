#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include <iconv.h>

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

/// An encoding by the name that iconv knows.
struct encoding {
    std::string name;           ///< as the user wrote it, for messages
    std::string iconv_name;     ///< what is without a byte order mark
    std::string swapped_name{}; ///< with the mark of the other order
    std::string mark{};         ///< begins a stream, or may
    std::string swapped_mark{};
    std::size_t unit = 1; ///< of so many octets is skipped what is wrong
    bool is_utf8 = false;

    /// Errors: lookup_error
    static encoding parse(std::string_view name);
};

/// Owns a descriptor of iconv, or none.
class converter {
public:
    converter() = default;
    /// Errors: lookup_error, naming the encoding
    converter(encoding const& of, std::string const& to, std::string const& from);
    converter(converter&& other) noexcept : handle_(std::exchange(other.handle_, none())) {}
    converter& operator=(converter&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~converter();

    enum class stopped : unsigned char { at_end, at_invalid, at_incomplete };
    /// Converts up to the end or to what cannot be converted; `input` begins there afterwards.
    stopped convert(std::string_view& input, std::string& output);
    /// Back to the beginning; what that takes is put out.
    void finish(std::string& output);

private:
    static ::iconv_t none() { return ::iconv_t(-1); }
    ::iconv_t handle_ = none();
};

/// Octets to UTF-8, piece by piece.
class decoder {
public:
    decoder(encoding of, on_error then);

    /// Decodes what was given and what was kept. It stops in front of what is wrong, if that throws
    /// and something comes before it. Errors: unicode_error
    std::string decode(std::string_view octets);
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
