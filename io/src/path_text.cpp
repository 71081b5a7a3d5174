#include <weft/io/path.hpp>

#include "file_encoding.hpp"
#include "file_state.hpp"
#include "path_call.hpp"

#include <weft/io/file.hpp>

namespace weft {

namespace {

// The whole of a file at once, in a thread.
template <class Use> auto with_file(path const& name, char const* mode, Use use) {
    std::unique_ptr<detail::file_state> const state =
        detail::open_file_state(name, detail::parse_file_mode(mode, {}));
    auto result = use(*state);
    state->close();
    return result;
}

constexpr auto wait = detail::file_state::wait::yes;

bytes contents(path const& name) {
    return with_file(name, "rb",
                     [](detail::file_state& from) { return *from.read(detail::no_limit, wait); });
}

std::size_t replace_contents(path const& name, std::string_view data) {
    return with_file(name, "wb",
                     [data](detail::file_state& to) { return *to.write(data, true, wait); });
}

} // namespace

file path::open(std::string mode, open_options const& how) const {
    open_options with_mine = how;
    if (with_mine.limiter == nullptr) with_mine.limiter = limiter_;
    return open_file(*this, std::move(mode), with_mine);
}

bytes path::read_bytes() const {
    return detail::act_in_thread(limiter_, [this] { return contents(*this); });
}

std::size_t path::write_bytes(bytes_view data) const {
    return detail::act_in_thread(limiter_,
                                 [this, data] { return replace_contents(*this, data.text()); });
}

std::string path::read_text(text_options const& how) const {
    detail::text_rules const rules = detail::make_text_rules(how.errors, how.newline);
    return detail::act_in_thread(limiter_, [&] {
        std::string const text = detail::decoded(contents(*this), how.encoding, rules.errors);
        std::string result;
        detail::read_text(rules, text, true, {detail::no_limit}, result);
        return result;
    });
}

std::size_t path::write_text(std::string_view text, text_options const& how) const {
    detail::text_rules const rules = detail::make_text_rules(how.errors, how.newline);
    return detail::act_in_thread(limiter_, [&] {
        std::size_t characters = 0;
        replace_contents(*this, detail::encoded(detail::written_text(rules, text, characters),
                                                how.encoding, rules.errors));
        return characters;
    });
}

} // namespace weft
