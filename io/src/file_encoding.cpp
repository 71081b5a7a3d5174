#include "file_encoding.hpp"

#include "utf8.hpp"

#include <weft/runtime/error.hpp>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <iconv.h>

namespace weft::detail {

namespace {

constexpr char utf8[] = "UTF-8";
constexpr std::size_t chunk = 16384;

// "latin-1", "utf_8": iconv knows many names, but not with all of the dashes that people write.
std::string without_dashes(std::string name) {
    std::erase_if(name, [](char c) { return c == '-' || c == '_'; });
    return name;
}

std::string upper(std::string name) {
    for (char& c : name)
        if (c >= 'a' && c <= 'z') c = char(c - 'a' + 'A');
    return name;
}

::iconv_t open_conversion(std::string const& from, std::string const& to) {
    auto const invalid = reinterpret_cast<::iconv_t>(-1);
    ::iconv_t handle = ::iconv_open(to.c_str(), from.c_str());
    if (handle == invalid)
        handle = ::iconv_open(without_dashes(to).c_str(), without_dashes(from).c_str());
    if (handle == invalid)
        throw lookup_error("unknown encoding: '" + (from == utf8 ? to : from) + "'");
    return handle;
}

std::size_t unit_of(std::string const& encoding) {
    std::string const name = upper(without_dashes(encoding));
    if (name.starts_with("UTF16") || name.starts_with("UCS2")) return 2;
    if (name.starts_with("UTF32") || name.starts_with("UCS4")) return 4;
    return 1;
}

} // namespace

bool is_utf8(std::string const& encoding) {
    return encoding.empty() || upper(without_dashes(encoding)) == "UTF8";
}

transcoder::transcoder(std::string const& from, std::string const& to, text_errors errors)
    : handle_(open_conversion(from, to)), encodes_(from == utf8),
      unit_(encodes_ ? 1 : unit_of(from)), errors_(errors), name_(encodes_ ? to : from) {}

transcoder::transcoder(transcoder&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), encodes_(other.encodes_), unit_(other.unit_),
      errors_(other.errors_), name_(other.name_) {}

transcoder::~transcoder() {
    if (handle_ != nullptr) ::iconv_close(handle_);
}

void transcoder::reset() { ::iconv(handle_, nullptr, nullptr, nullptr, nullptr); }

// How much of what cannot be converted is one piece.
std::size_t transcoder::skip_length(std::string_view rest) const {
    std::size_t const length = encodes_ ? first_utf8_character(rest).length : unit_;
    return std::min(length, rest.size());
}

std::size_t transcoder::convert(std::string_view input, bool at_end, std::string& out) {
    char space[4096];
    std::size_t used = 0;
    while (used < input.size()) {
        auto* from = const_cast<char*>(input.data()) + used; // iconv(3) changes the pointer only
        std::size_t left = input.size() - used;
        char* to = space;
        std::size_t room = sizeof space;
        std::size_t const result = ::iconv(handle_, &from, &left, &to, &room);
        int const error = errno;
        out.append(space, std::size_t(to - space));
        used = input.size() - left;
        if (result != std::size_t(-1) || error == E2BIG) continue;
        if (error == EINVAL && !at_end) break; // an incomplete character
        if (errors_ == text_errors::strict)
            throw std::invalid_argument(
                encodes_ ? "the text holds a character that " + name_ + " has not"
                         : "the octets at " + std::to_string(used) + " are no text in " + name_);
        used += skip_length(input.substr(used));
        if (errors_ == text_errors::replace && encodes_)
            convert("?", true, out);
        else if (errors_ == text_errors::replace)
            out += "\xEF\xBF\xBD";
    }
    return used;
}

std::string decoded(std::string octets, std::string const& encoding, text_errors errors) {
    if (is_utf8(encoding)) return octets;
    std::string text;
    transcoder(encoding, utf8, errors).convert(octets, true, text);
    return text;
}

std::string encoded(std::string text, std::string const& encoding, text_errors errors) {
    if (is_utf8(encoding)) return text;
    std::string octets;
    transcoder(utf8, encoding, errors).convert(text, true, octets);
    return octets;
}

namespace {

class transcoding_device final : public file_device {
public:
    transcoding_device(std::unique_ptr<file_device> inner, std::string const& encoding,
                       text_errors errors)
        : decoder_(encoding, utf8, errors), encoder_(utf8, encoding, errors),
          inner_(std::move(inner)) {}

    std::size_t read(buffer target) override {
        settle();
        while (decoded_.empty()) {
            std::size_t const old = raw_.size();
            raw_.resize(old + chunk);
            std::size_t const count = inner_->read(as_buffer(raw_).subspan(old));
            raw_.resize(old + count);
            raw_.erase(0, decoder_.convert(raw_, count == 0, decoded_));
            if (count == 0 && decoded_.empty()) return 0;
        }
        std::size_t const count = std::min(target.size(), decoded_.size());
        decoded_.copy(reinterpret_cast<char*>(target.data()), count);
        decoded_.erase(0, count);
        return count;
    }

    // Takes all of it. A part of the octets cannot be expressed as a part of the text, so it is the
    // octets that are kept when the device fails in the middle of them.
    std::size_t write(bytes_view data) override {
        settle();
        std::string octets;
        encoder_.convert(data.text(), true, octets);
        owed_ = std::move(octets);
        return data.size();
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
        if (offset != 0 || (whence != SEEK_SET && whence != SEEK_END))
            throw std::system_error(std::make_error_code(std::errc::operation_not_supported),
                                    "a position inside of a text in another encoding than UTF-8");
        settle();
        std::uint64_t const at = inner_->seek(offset, whence);
        raw_.clear();
        decoded_.clear();
        decoder_.reset();
        encoder_.reset();
        // In the middle of a file there is no byte order mark.
        std::string mark;
        if (at > 0) encoder_.convert(" ", true, mark);
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
    bool has_positions() const override { return false; }

private:
    transcoder decoder_;
    transcoder encoder_;
    std::unique_ptr<file_device> inner_;
    std::string raw_;     // no whole character yet
    std::string decoded_; // not taken
    std::string owed_;    // of texts that were taken, and not yet put out
};

} // namespace

std::unique_ptr<file_device> make_transcoding_device(std::unique_ptr<file_device> inner,
                                                     std::string const& encoding,
                                                     text_errors errors) {
    return std::make_unique<transcoding_device>(std::move(inner), encoding, errors);
}

} // namespace weft::detail
