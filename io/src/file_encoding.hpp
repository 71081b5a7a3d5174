#pragma once

#include "file_device.hpp"
#include "file_text.hpp"

#include <weft/io/detail/encoding.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace weft::detail {

/// Text from an encoding into UTF-8 or back, piece by piece. What is UTF-8 already, with a mark or
/// without, is not looked at: a file's text rules do that.
class transcoder {
public:
    enum class way : bool { decodes, encodes };
    transcoder(encoding, way, text_errors);

    /// Appends what the input means to `out` and gives how many octets of it were used. Decoding
    /// leaves an incomplete character, unless it is at the end, and strictly what begins with an
    /// error, until that is all there is; the end is told by no input at all. What is encoded is
    /// complete: it ends in the encoding's first state. Errors: std::invalid_argument (strict, and
    /// it cannot be converted)
    std::size_t convert(std::string_view input, bool at_end, std::string& out);
    void begin(); ///< as new: a byte order mark comes first, or may
    /// The same, but in the middle of a text: of the order that is known, or that its beginning has.
    void go_on(std::string_view beginning = {});
    bool is_at_beginning() const { return at_beginning_; }
    bool expects_mark() const { return at_beginning_ && !encoding_.mark.empty(); }
    /// So much of a text tells its order; 0: that is known.
    std::size_t order_mark_size() const { return encoding_.swapped_mark.size(); }

private:
    bool pass_mark(std::string_view& input, bool at_end);
    void substitute(std::string_view& rest, std::string& out);

    encoding const encoding_;
    way const way_;
    text_errors const errors_;
    converter converter_; // none for UTF-8
    bool at_beginning_ = true;
};

/// None: nothing but UTF-8, as the empty name, too. Errors: lookup_error
std::optional<encoding> parse_text_encoding(std::string const& name);

/// A whole text. Errors: std::invalid_argument; lookup_error (unknown encoding)
std::string decoded(std::string octets, std::string const& name, text_errors);
std::string encoded(std::string text, std::string const& name, text_errors);

/// A device of UTF-8 over one of another encoding. Its position can be asked for between texts: at
/// both ends, where a seek went to and behind what was written. In what is read, characters have
/// none that could be computed.
std::unique_ptr<file_device> make_transcoding_device(std::unique_ptr<file_device>, encoding const&,
                                                     text_errors);

} // namespace weft::detail
