#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace weft::detail {

/// An encoding of text, by Python's names and iconv's: what files and text streams know.
struct encoding {
    std::string name;           ///< as the user wrote it, for messages
    std::string iconv_name;     ///< what is without a byte order mark
    std::string swapped_name{}; ///< with the mark of the other order
    std::string mark{};         ///< begins a text, or may
    std::string swapped_mark{};
    std::size_t unit = 1; ///< of so many octets is skipped what is wrong
    bool is_utf8 = false;

    /// Errors: lookup_error
    static encoding parse(std::string_view name);

    enum class mark_found : unsigned char { none, own, swapped, unknown };
    /// Takes a byte order mark off the beginning of a text. unknown: more is needed to know, unless that
    /// is all of the text.
    mark_found take_mark(std::string_view& text, bool is_all) const;
};

/// Owns a descriptor of iconv(3), or none.
class converter {
public:
    converter() = default;
    /// By iconv's names. Errors: lookup_error, naming the encoding
    converter(encoding const& of, std::string const& to, std::string const& from);

    enum class stopped : unsigned char { at_end, at_invalid, at_incomplete };
    /// Converts up to the end or to what cannot be converted; `input` begins there afterwards. A
    /// letter is kept if an accent may follow it, but not in front of what is invalid.
    stopped convert(std::string_view& input, std::string& output);
    /// Back to the beginning; what that takes is put out.
    void finish(std::string& output);

private:
    struct closer {
        void operator()(void* handle) const;
    };

    bool keeps_letters();

    std::unique_ptr<void, closer> handle_; // an iconv_t
    std::string to_;
    std::string from_;
    std::optional<bool> keeps_letters_; // none: nobody had to know
};

} // namespace weft::detail
