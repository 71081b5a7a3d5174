#include "file_encoding.hpp"

#include "utf8.hpp"

#include <algorithm>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace weft::detail {

namespace {

constexpr std::size_t chunk = 16384;
constexpr std::string_view replacement = "\xEF\xBF\xBD"; // U+FFFD

std::string in_hex(std::string_view octets) {
    constexpr char digits[] = "0123456789abcdef";
    std::string result;
    for (char const each : octets) {
        auto const value = static_cast<unsigned char>(each);
        result += {' ', '0', 'x', digits[value / 16], digits[value % 16]};
    }
    return result;
}

converter make_converter(encoding const& of, bool encodes) {
    if (of.is_utf8) return {};
    return encodes ? converter(of, of.iconv_name, "UTF-8") : converter(of, "UTF-8", of.iconv_name);
}

} // namespace

transcoder::transcoder(encoding of, way which, text_errors errors)
    : encoding_(std::move(of)), way_(which), errors_(errors),
      converter_(make_converter(encoding_, which == way::encodes)) {}

void transcoder::begin() {
    converter_ = make_converter(encoding_, way_ == way::encodes); // it may be of the swapped order
    at_beginning_ = true;
}

void transcoder::go_on(std::string_view beginning) {
    std::string unwanted;
    if (!encoding_.is_utf8) converter_.finish(unwanted);
    if (!beginning.empty()) pass_mark(beginning, true);
    at_beginning_ = false;
}

// False: more is needed to know whether there is one.
bool transcoder::pass_mark(std::string_view& input, bool at_end) {
    encoding::mark_found const found = encoding_.take_mark(input, at_end);
    if (found == encoding::mark_found::unknown) return false;
    if (found == encoding::mark_found::swapped)
        converter_ = converter(encoding_, "UTF-8", encoding_.swapped_name);
    at_beginning_ = false;
    return true;
}

void transcoder::substitute(std::string_view& rest, std::string& out) {
    bool const encodes = way_ == way::encodes;
    // How much of what cannot be converted is one piece.
    std::size_t const length =
        encodes ? first_utf8_character(rest).length : std::min(encoding_.unit, rest.size());
    if (errors_ == text_errors::strict)
        throw std::invalid_argument(
            encodes ? "the text holds a character that " + encoding_.name + " has not"
                    : "no text in " + encoding_.name + ":" + in_hex(rest.substr(0, length)));
    rest.remove_prefix(length);
    if (errors_ == text_errors::ignore) return;
    std::string_view mark = "?";
    if (encodes)
        converter_.convert(mark, out);
    else
        out += replacement;
}

std::size_t transcoder::convert(std::string_view input, bool at_end, std::string& out) {
    bool const encodes = way_ == way::encodes;
    std::string_view rest = input;
    std::size_t const before = out.size();
    if (input.empty() && !encodes) {
        if (at_end && !encoding_.is_utf8) converter_.finish(out);
        return 0;
    }
    if (at_beginning_ && encodes)
        out += encoding_.mark;
    else if (at_beginning_ && !pass_mark(rest, at_end))
        return 0;
    if (encoding_.is_utf8) {
        out += rest;
        at_beginning_ = false;
        return input.size();
    }
    try {
        for (;;) {
            converter::stopped const why = converter_.convert(rest, out);
            if (why == converter::stopped::at_end) break;
            if (why == converter::stopped::at_incomplete && !at_end) break;
            // A letter that was kept comes before it, too, though no octet of the input does.
            bool const good_before = rest.size() < input.size() || out.size() > before;
            if (errors_ == text_errors::strict && !encodes && good_before) break;
            substitute(rest, out);
        }
    } catch (std::invalid_argument const&) {
        std::string unwanted;
        if (encodes) converter_.finish(unwanted); // the next text begins anew
        throw;
    }
    if (encodes) converter_.finish(out);
    at_beginning_ = false;
    return input.size() - rest.size();
}

std::optional<encoding> parse_text_encoding(std::string const& name) {
    if (name.empty()) return {};
    encoding known = encoding::parse(name);
    if (known.is_utf8 && known.mark.empty()) return {};
    return known;
}

std::string decoded(std::string octets, std::string const& name, text_errors errors) {
    auto known = parse_text_encoding(name);
    if (!known) return octets;
    std::string text;
    transcoder decoder(*std::move(known), transcoder::way::decodes, errors);
    for (std::string_view rest = octets; !rest.empty();)
        rest.remove_prefix(decoder.convert(rest, true, text));
    decoder.convert({}, true, text);
    return text;
}

std::string encoded(std::string text, std::string const& name, text_errors errors) {
    auto known = parse_text_encoding(name);
    if (!known) return text;
    std::string octets;
    transcoder(*std::move(known), transcoder::way::encodes, errors).convert(text, true, octets);
    return octets;
}

namespace {

[[noreturn]] void refuse_position() {
    throw std::system_error(std::make_error_code(std::errc::operation_not_supported),
                            "a position inside of a text in another encoding than UTF-8");
}

class transcoding_device final : public file_device {
public:
    transcoding_device(std::unique_ptr<file_device> inner, encoding const& of, text_errors errors)
        : decoder_(of, transcoder::way::decodes, errors),
          encoder_(of, transcoder::way::encodes, errors), inner_(std::move(inner)) {
        if (errors == text_errors::strict)
            trial_.emplace(of, transcoder::way::encodes, text_errors::strict);
    }

    std::size_t read(buffer target) override {
        settle();
        if (order_unknown_) find_order();
        for (bool at_end = false; decoded_.empty();) {
            // What is there may do, or be an error: more can be a long time coming.
            raw_.erase(0, decoder_.convert(raw_, at_end, decoded_));
            if (!decoded_.empty()) break;
            if (at_end && raw_.empty()) return 0;
            at_end = read_raw(chunk) == 0;
        }
        std::size_t const count = std::min(target.size(), decoded_.size());
        decoded_.copy(reinterpret_cast<char*>(target.data()), count);
        decoded_.erase(0, count);
        return count;
    }

    // What is gathered is reported as written, so write() would be too late to refuse it. In the
    // middle of what was decoded it would get behind all of that.
    void require_acceptable(std::string_view text) override {
        if (holds_text() && inner_->seekable()) refuse_position();
        std::string unwanted;
        if (trial_) trial_->convert(text, true, unwanted);
    }

    bool begins_text() const override { return encoder_.expects_mark(); }

    // Takes all of it. A part of the octets cannot be expressed as a part of the text, so it is the
    // octets that are kept when the device fails in the middle of them.
    std::size_t write(bytes_view data) override {
        settle();
        owed_ = octets_of(data);
        return data.size();
    }

    // All or nothing, as memory has it; then nothing was said, no mark either.
    std::optional<std::size_t> write_now(bytes_view data) override {
        if (!in_memory()) return {};
        bool const began = encoder_.is_at_beginning();
        if (inner_->write_now(octets_of(data))) return data.size();
        if (began) encoder_.begin();
        return {};
    }

    void settle() override {
        std::size_t done = 0;
        try {
            while (done < owed_.size())
                done += inner_->write(std::string_view(owed_).substr(done));
        } catch (...) {
            owed_.erase(0, done);
            throw;
        }
        owed_.clear();
    }
    bool owes() const override { return !owed_.empty(); }

    std::uint64_t seek(std::int64_t offset, int whence) override {
        settle();
        if (whence == SEEK_CUR && seekable() && (offset != 0 || is_inside())) refuse_position();
        std::uint64_t const at = inner_->seek(offset, whence);
        if (whence == SEEK_CUR) return at; // in the middle of what it was doing
        raw_.clear();
        decoded_.clear();
        inside_ = false;
        if (at == 0) {
            decoder_.begin();
            encoder_.begin();
        } else {
            if (!decoder_.is_at_beginning()) decoder_.go_on();
            encoder_.go_on();
        }
        order_unknown_ = at != 0 && decoder_.is_at_beginning();
        return at;
    }

    void truncate(std::uint64_t size) override {
        settle();
        inner_->truncate(size);
    }
    void flush() override { inner_->flush(); }
    void close() override { inner_->close(); }
    int fd() const override { return inner_->fd(); }
    std::FILE* stream() const override { return inner_->stream(); }
    bool seekable() const override { return inner_->seekable(); }
    bool may_gather() const override { return inner_->may_gather(); }
    bool in_memory() const override { return inner_->in_memory() && !owes(); }
    bool has_positions() const override { return false; }

    // Behind the last of what was read the decoder may be in the middle of a shift, or have kept a
    // letter for the accent that may follow; the end, which ends these, has to be seen.
    bool may_be_inside() const override { return inside_ && seekable() && !holds_text(); }

private:
    bool holds_text() const { return !decoded_.empty() || !raw_.empty(); }

    // Whether the device stands where a decoder could not begin.
    bool is_inside() {
        if (may_be_inside() && read_raw(chunk) == 0) decoder_.convert({}, true, decoded_);
        return holds_text();
    }

    // Puts what there is behind what is not decoded.
    std::size_t read_raw(std::size_t most) {
        std::size_t const old = raw_.size();
        raw_.resize(old + most);
        std::size_t count = 0;
        try {
            count = inner_->read(as_buffer(raw_).subspan(old));
        } catch (...) {
            raw_.resize(old); // what was made room for is no text
            throw;
        }
        raw_.resize(old + count);
        if (count > 0) encoder_.go_on(); // no mark behind what is there already
        inside_ = count > 0;
        return count;
    }

    // The mark at the beginning tells the order of what is anywhere.
    void find_order() {
        if (std::size_t const wanted = decoder_.order_mark_size(); wanted > 0) {
            auto const here = std::int64_t(inner_->seek(0, SEEK_CUR));
            inner_->seek(0, SEEK_SET);
            try {
                while (raw_.size() < wanted && read_raw(wanted - raw_.size()) > 0) {
                }
            } catch (...) {
                raw_.clear();
                inner_->seek(here, SEEK_SET);
                throw;
            }
            inner_->seek(here, SEEK_SET);
        }
        decoder_.go_on(std::exchange(raw_, {}));
        order_unknown_ = false;
    }

    std::string octets_of(bytes_view text) {
        inside_ = false;
        std::string octets;
        encoder_.convert(text.text(), true, octets);
        return octets;
    }

    transcoder decoder_;
    transcoder encoder_;
    std::optional<transcoder> trial_; // an encoder apart from what the file has come to
    std::unique_ptr<file_device> inner_;
    std::string raw_;     // no whole character yet
    std::string decoded_; // not taken
    std::string owed_;    // of texts that were taken, and not yet put out
    bool inside_ = false; // something was read, and the end was not seen
    bool order_unknown_ = false; // a seek went past the mark before anything was read
};

} // namespace

std::unique_ptr<file_device> make_transcoding_device(std::unique_ptr<file_device> inner,
                                                     encoding const& of, text_errors errors) {
    return std::make_unique<transcoding_device>(std::move(inner), of, errors);
}

} // namespace weft::detail
