#pragma once

#include "file_device.hpp"
#include "file_text.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace weft::detail {

/// Text from one encoding into another, piece by piece, by iconv(3).
class transcoder {
public:
    /// Errors: lookup_error (unknown encoding)
    transcoder(std::string const& from, std::string const& to, text_errors);
    transcoder(transcoder&&) noexcept;
    transcoder& operator=(transcoder&&) = delete;
    ~transcoder();

    /// Appends what the input means to `out` and gives how many octets of it were used; unless it
    /// is at the end, an incomplete character is left. Errors: std::invalid_argument (strict, and
    /// it cannot be converted)
    std::size_t convert(std::string_view input, bool at_end, std::string& out);
    void reset(); ///< as new

private:
    std::size_t skip_length(std::string_view rest) const;

    void* handle_; // an iconv_t
    bool encodes_; // from UTF-8; else to it
    std::size_t unit_ = 1;
    text_errors const errors_;
    std::string const name_;
};

bool is_utf8(std::string const& encoding); ///< also if it is empty

/// A whole text. Errors: std::invalid_argument; lookup_error (unknown encoding)
std::string decoded(std::string octets, std::string const& encoding, text_errors);
std::string encoded(std::string text, std::string const& encoding, text_errors);

/// A device of UTF-8 over one of another encoding. Its position can be set to both ends and not be
/// asked for: characters of such files have none that could be computed.
std::unique_ptr<file_device> make_transcoding_device(std::unique_ptr<file_device>,
                                                     std::string const& encoding, text_errors);

} // namespace weft::detail
